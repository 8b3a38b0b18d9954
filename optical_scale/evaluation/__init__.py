"""Retrieval metrics per language, the gap between groups, and the report."""
