"""Corpus files become records; no tensors and no shards here."""
