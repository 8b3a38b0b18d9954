"""Optimal transport as mathematics; knows nothing of teachers, languages or DeepSpeed."""

from optical_scale.transport.gradient import GradientName, SinkhornCost, sinkhorn_cost
from optical_scale.transport.output import Choice, SinkhornOutput
from optical_scale.transport.solve import solve

__all__ = ["Choice", "GradientName", "SinkhornCost", "SinkhornOutput", "sinkhorn_cost", "solve"]
