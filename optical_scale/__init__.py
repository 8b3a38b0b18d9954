"""Optimal-transport distillation of multilingual and multimodal retrievers, sharded with DeepSpeed."""

__version__ = "0.1.0"
