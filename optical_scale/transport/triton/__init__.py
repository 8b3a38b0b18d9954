"""Triton kernels for NVIDIA GPUs, in three tiers; ``docs/transport_gpu.md`` explains them.

Importing this package needs no Triton. ``support`` says whether it can run here, ``operators`` holds the backend.
"""
