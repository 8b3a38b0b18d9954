"""Checkpoints become Hugging Face folders that are proved equal before they appear."""
