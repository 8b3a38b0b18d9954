"""Optimal transport as mathematics; knows nothing of teachers, languages or DeepSpeed."""
