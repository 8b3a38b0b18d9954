"""Retrieval collections: documents, topics in many languages and relevance judgements, in every layout of the field."""
