"""Optimal transport as mathematics; knows nothing of teachers, languages or DeepSpeed."""

from optical_scale.transport.diagnose import Diagnosis, diagnose
from optical_scale.transport.gradient import GradientName, SinkhornCost, sinkhorn_cost
from optical_scale.transport.matrix import matrix_cost, solve_matrix
from optical_scale.transport.output import Choice, SinkhornOutput
from optical_scale.transport.packed import PackedGroup, PackedOutput, sinkhorn_cost_packed, solve_packed
from optical_scale.transport.sharded import ShardedCost, sharded_cost
from optical_scale.transport.solve import solve

__all__ = [
    "Choice",
    "Diagnosis",
    "GradientName",
    "PackedGroup",
    "PackedOutput",
    "ShardedCost",
    "SinkhornCost",
    "SinkhornOutput",
    "diagnose",
    "matrix_cost",
    "sharded_cost",
    "sinkhorn_cost",
    "sinkhorn_cost_packed",
    "solve",
    "solve_matrix",
    "solve_packed",
]
