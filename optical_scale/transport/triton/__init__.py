"""Triton kernels for NVIDIA GPUs, in three tiers; see :mod:`.operators`.

Importing this package needs no Triton. ``support`` says whether it can run here, ``operators`` holds the backend.
"""
