"""Schemas of the YAML files: the one place that knows YAML and catches mistakes by type."""
