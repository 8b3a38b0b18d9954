"""A transport problem: a geometry, two sets of masses, and the strengths of the two penalties."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from optical_scale.errors import TransportError
from optical_scale.transport.geometry import CostName, Geometry, build_geometry, working_dtype

EpsilonMode = Literal["absolute", "relative"]

# Relative epsilon never falls below the range of the costs over this number: with less, single-precision scalings
# overflow.
RANGE_OVER_EPSILON = 200.0
# Nor below the range the costs could have over this one (1e-4 for cosines): the costs of vectors that are all but equal
# differ by rounding only.
_POSSIBLE_RANGE_OVER_EPSILON = 20_000.0


@dataclass(frozen=True, slots=True)
class TransportProblem:
    """``min <P, C> + epsilon KL(P | a b^T)``, with P's marginals equal to (balanced) or pulled towards a and b.

    Attributes:
        geometry: where costs come from.
        a_BN: masses of the rows, zero outside the mask.
        b_BM: masses of the columns, zero outside the mask.
        epsilon_B1: entropic strength of each pair in units of the cost, shaped to broadcast against potentials.
        rho: strength of the KL penalty that replaces the marginal constraints; None means balanced.
        transported_B1: mass that a partial plan moves, at most a and b anywhere; None means all of it.
    """

    geometry: Geometry
    a_BN: Tensor
    b_BM: Tensor
    epsilon_B1: Tensor
    rho: float | None
    transported_B1: Tensor | None = None

    @property
    def epsilon(self) -> Tensor:
        """Epsilon of each pair, (B,)."""
        return self.epsilon_B1.squeeze(1)

    @property
    def damping(self) -> Tensor | None:
        """``rho / (rho + epsilon)``, the factor of every potential in the unbalanced problem; None when balanced."""
        return None if self.rho is None else self.rho / (self.rho + self.epsilon_B1)

    def pairs(self, part: slice, columns: slice = slice(None)) -> "TransportProblem":
        """Some pairs of the batch, and some of their columns, as views."""
        return TransportProblem(
            self.geometry.pairs(part, columns),
            self.a_BN[part],
            self.b_BM[part, columns],
            self.epsilon_B1[part],
            self.rho,
            None if self.transported_B1 is None else self.transported_B1[part],
        )

    def rows(self, part: slice) -> "TransportProblem":
        """The masses of some rows, as a view, for half-steps on a panel; the geometry stays whole."""
        return replace(self, a_BN=self.a_BN[:, part])

    def at_epsilon(self, epsilon_B1: Tensor) -> "TransportProblem":
        """The same problem with another epsilon, for an epsilon schedule."""
        return replace(self, epsilon_B1=epsilon_B1)

    def target_row_mass(self, f_BN: Tensor, mass_BN: Tensor) -> Tensor:
        """The row masses the plan would have if f, with g held, were optimal.

        Balanced a; unbalanced ``a exp(-f / rho)``; partial the smaller of a and what the row sends at f = 0.

        Args:
            f_BN: row potentials.
            mass_BN: row masses of the plan.
        """
        if self.transported_B1 is not None:
            return torch.minimum(self.a_BN, mass_BN * torch.exp(f_BN / -self.epsilon_B1))
        return self.a_BN if self.rho is None else self.a_BN * torch.exp(f_BN / -self.rho)

    def column_mass(self, g_BM: Tensor) -> Tensor:
        """The column masses of the plan right after g was updated, without a pass over the plan; not when partial."""
        assert self.transported_B1 is None, "a partial plan's column masses do not follow from g"
        return self.b_BM if self.rho is None else self.b_BM * torch.exp(g_BM / -self.rho)

    def marginal_error(self, f_BN: Tensor, mass_BN: Tensor) -> Tensor:
        """L1 distance of the plan's row masses from their target, as a share of the total mass."""
        return (mass_BN - self.target_row_mass(f_BN, mass_BN)).abs().sum(1) / self.a_BN.sum(1)


def build_problem(
    x_BND: Tensor,
    y_BMD: Tensor,
    mask_x_BN: Tensor | None,
    mask_y_BM: Tensor | None,
    marginal_x: Tensor | None,
    marginal_y: Tensor | None,
    *,
    cost: CostName,
    epsilon: float | Tensor,
    epsilon_mode: EpsilonMode,
    rho: float | None,
    check: bool,
    mass: float | Tensor | None = None,
) -> TransportProblem:
    """Prepare and check a batch of transport problems.

    Args:
        x_BND: vectors of the first side.
        y_BMD: vectors of the second side.
        mask_x_BN: bool, tokens that exist; None means all.
        mask_y_BM: the same for the second side.
        marginal_x: (B, N) masses, counted inside the mask only; None means uniform over the mask with sum one.
        marginal_y: (B, M), the same.
        cost: name of the cost.
        epsilon: a number, or one per pair (B,).
        epsilon_mode: "absolute", or "relative" to the standard deviation of each pair's costs over existing tokens.
        rho: KL strength of the unbalanced problem, None for balanced.
        check: look at the values too, which waits for the device once.
        mass: what a partial plan moves, a number or one per pair (B,); None for all.

    Returns:
        The problem; differentiable in vectors and masses where autograd records.

    Raises:
        TransportError: shapes disagree, epsilon or rho is not positive; with ``check`` also an empty sequence, a
            non-finite vector, a negative mass, no mass, unequal masses of a balanced problem, or more mass to
            move than there is.
    """
    check_shapes(x_BND, y_BMD, mask_x_BN, mask_y_BM, marginal_x, marginal_y)
    geometry = build_geometry(cost, x_BND, y_BMD, mask_x_BN, mask_y_BM)
    if cost != "sqeuclidean":  # whose features are not these vectors
        geometry.raw = (x_BND.detach(), y_BMD.detach())
    return finish_problem(
        geometry,
        masses(x_BND[..., 0], mask_x_BN, marginal_x, "marginal_x"),
        masses(y_BMD[..., 0], mask_y_BM, marginal_y, "marginal_y"),
        mask_x_BN,
        mask_y_BM,
        epsilon=epsilon,
        epsilon_mode=epsilon_mode,
        rho=rho,
        check=check,
        mass=mass,
    )


def finish_problem(
    geometry: Geometry,
    a_BN: Tensor,
    b_BM: Tensor,
    mask_x_BN: Tensor | None,
    mask_y_BM: Tensor | None,
    *,
    epsilon: float | Tensor,
    epsilon_mode: EpsilonMode,
    rho: float | None,
    check: bool,
    mass: float | Tensor | None,
) -> TransportProblem:
    """A problem from a finished geometry and masses; arguments, checks and errors as :func:`build_problem`."""
    if rho is not None and not 0 < rho < float("inf"):
        raise TransportError(f"rho is {rho}; expected a finite number above 0, or None for a balanced problem")
    a_BN, b_BM = a_BN.contiguous(), b_BM.contiguous()
    if rho is not None and mass is not None:
        raise TransportError("mass and rho exclude each other: a partial plan has hard limits, an unbalanced one none")
    if not isinstance(epsilon, Tensor) and not 0 < epsilon < float("inf"):
        raise TransportError(f"epsilon is {epsilon}; expected a finite number above 0, in units of the cost")
    if isinstance(epsilon, Tensor) and epsilon.shape not in ((), (len(a_BN),)):
        raise TransportError(f"epsilon has shape {tuple(epsilon.shape)}; expected a number or ({len(a_BN)},)")
    mass_B = None
    if mass is not None:
        mass_B = torch.as_tensor(mass, dtype=a_BN.dtype, device=a_BN.device).detach()
        if mass_B.shape not in ((), (len(a_BN),)):
            raise TransportError(f"mass has shape {tuple(mass_B.shape)}; expected a number or ({len(a_BN)},)")
        mass_B = mass_B.expand(len(a_BN))
    epsilon_B = torch.as_tensor(epsilon, dtype=a_BN.dtype, device=a_BN.device).detach().expand(len(a_BN))
    if check:
        _check_values(geometry, a_BN, b_BM, epsilon_B, mass_B, balanced=rho is None and mass is None)
    if epsilon_mode == "relative":
        spread_B, range_B = cost_spread(geometry, mask_x_BN, mask_y_BM)
        least_B = torch.maximum(range_B / RANGE_OVER_EPSILON, geometry.cost_range() / _POSSIBLE_RANGE_OVER_EPSILON)
        epsilon_B = torch.maximum(epsilon_B * spread_B, least_B)
        # Vectors that are all zero leave dot and squared costs without any scale; any positive number is then right.
        epsilon_B = torch.where(epsilon_B == 0, torch.ones_like(epsilon_B), epsilon_B).detach()
    return TransportProblem(
        geometry, a_BN, b_BM, epsilon_B.unsqueeze(1), rho, None if mass_B is None else mass_B.unsqueeze(1)
    )


@torch.no_grad()
def cost_spread(geometry: Geometry, mask_x_BN: Tensor | None, mask_y_BM: Tensor | None) -> tuple[Tensor, Tensor]:
    """Standard deviation and range of each pair's costs over existing tokens, (B,) each, computed in row panels.

    Args:
        geometry: the cost.
        mask_x_BN: rows that exist, None for all.
        mask_y_BM: columns that exist, None for all.

    Returns:
        Both in the units of the cost; zero where a pair has one entry.
    """
    B, N, M = geometry.shape
    centre_B11 = geometry.cost(0, 1).mean((1, 2), keepdim=True)
    # In units of a bound of their range, so that squares stay finite.
    unit_B11 = geometry.cost_range().view(B, 1, 1).to(centre_B11)
    unit_B11 = unit_B11.masked_fill(unit_B11 == 0, 1.0)
    x_BN = centre_B11.new_ones(B, N) if mask_x_BN is None else mask_x_BN.to(centre_B11)
    y_BM = centre_B11.new_ones(B, M) if mask_y_BM is None else mask_y_BM.to(centre_B11)
    count_B = x_BN.sum(1) * y_BM.sum(1)
    panel = max(1, (1 << 22) // max(1, B * M))
    # Twice, the second time around their mean, so that squares of nearly equal costs do not cancel.
    for _ in range(2):
        first_B, second_B = torch.zeros_like(count_B), torch.zeros_like(count_B)
        lowest_B, highest_B = torch.full_like(count_B, torch.inf), torch.full_like(count_B, -torch.inf)
        for start in range(0, N, panel):
            cost_BRM = geometry.cost(start, start + panel).sub_(centre_B11).div_(unit_B11)
            rows_BR = x_BN[:, start : start + panel]
            weighted_BRM = cost_BRM * y_BM[:, None, :]
            absent_BRM = (rows_BR[:, :, None] * y_BM[:, None, :]) == 0
            lowest_B = torch.minimum(lowest_B, cost_BRM.masked_fill(absent_BRM, torch.inf).amin((1, 2)))
            highest_B = torch.maximum(highest_B, cost_BRM.masked_fill(absent_BRM, -torch.inf).amax((1, 2)))
            first_B += (weighted_BRM.sum(2) * rows_BR).sum(1)
            second_B += (weighted_BRM.mul_(cost_BRM).sum(2) * rows_BR).sum(1)
        mean_B = first_B / count_B
        centre_B11 = centre_B11 + mean_B.view(B, 1, 1) * unit_B11
    deviation_B = (second_B / count_B - mean_B.square()).clamp_min(0).sqrt()
    return deviation_B * unit_B11.view(B), (highest_B - lowest_B) * unit_B11.view(B)


def masses(like_BT: Tensor, mask_BT: Tensor | None, marginal_BT: Tensor | None, name: str) -> Tensor:
    """Masses (B, T) inside the mask: given, or uniform with sum one.

    Args:
        like_BT: for shape, dtype and device.
        mask_BT: tokens that exist, None for all.
        marginal_BT: given masses, None for uniform.
        name: of the marginal, for the error.

    Raises:
        TransportError: a marginal of another shape.
    """
    dtype = working_dtype(like_BT)
    if marginal_BT is not None:
        if marginal_BT.shape != like_BT.shape:
            raise TransportError(f"{name} has shape {tuple(marginal_BT.shape)}; expected {tuple(like_BT.shape)}")
        mass_BT = marginal_BT.to(device=like_BT.device, dtype=dtype)
        return mass_BT if mask_BT is None else mass_BT.masked_fill(~mask_BT, 0.0)
    if mask_BT is None:
        return like_BT.new_full(like_BT.shape, 1.0 / max(1, like_BT.shape[1]), dtype=dtype)
    mass_BT = mask_BT.to(dtype)
    return mass_BT / mass_BT.sum(1, keepdim=True).clamp_min(1.0)


def check_shapes(
    x_BND: Tensor,
    y_BMD: Tensor,
    mask_x_BN: Tensor | None,
    mask_y_BM: Tensor | None,
    marginal_x: Tensor | None,
    marginal_y: Tensor | None,
) -> None:
    """Raise :class:`TransportError` unless tokens, masks and masses agree; arguments as :func:`build_problem`."""
    check_tensors(
        {"x": x_BND, "y": y_BMD, "mask_x_BN": mask_x_BN, "mask_y_BM": mask_y_BM}
        | {"marginal_x": marginal_x, "marginal_y": marginal_y}
    )
    for name, x in (("x", x_BND), ("y", y_BMD)):
        if x.ndim != 3 or not x.is_floating_point():
            raise TransportError(f"{name} is {x.dtype} {tuple(x.shape)}; expected floating (pairs, tokens, width)")
        if x.shape[1] == 0 or x.shape[2] == 0:
            raise TransportError(f"{name} has shape {tuple(x.shape)}: an empty sequence has no transport plan; drop it")
    if x_BND.shape[0] != y_BMD.shape[0] or x_BND.shape[2] != y_BMD.shape[2]:
        raise TransportError(
            f"x {tuple(x_BND.shape)} and y {tuple(y_BMD.shape)} must agree in pairs (first) and width (last); "
            "project one side if the encoders differ in width"
        )
    if working_dtype(x_BND) != working_dtype(y_BMD):
        raise TransportError(f"x is {x_BND.dtype}, y {y_BMD.dtype}; float64 needs both sides, so convert one of them")
    for name, extra, x in (
        ("mask_x_BN", mask_x_BN, x_BND),
        ("mask_y_BM", mask_y_BM, y_BMD),
        ("marginal_x", marginal_x, x_BND),
        ("marginal_y", marginal_y, y_BMD),
    ):
        if extra is None:
            continue
        if extra.shape != x.shape[:2]:
            raise TransportError(f"{name} has shape {tuple(extra.shape)}; expected {tuple(x.shape[:2])}")
        if name.startswith("mask") and extra.dtype != torch.bool:
            raise TransportError(f"{name} is {extra.dtype}; expected bool, True for tokens that exist")


def check_tensors(given: dict[str, Tensor | None]) -> None:
    """Raise :class:`TransportError` unless everything given is a tensor on the device of the first, which has to be."""
    first, device = next(iter(given)), None
    for name, tensor in given.items():
        if tensor is None and name not in (first, "y"):
            continue
        if not isinstance(tensor, Tensor):
            raise TransportError(f"{name} is a {type(tensor).__name__}; expected a torch.Tensor")
        device = tensor.device if device is None else device
        if tensor.device != device:
            raise TransportError(f"{first} is on {device}, {name} on {tensor.device}; move them to one device")


@torch.no_grad()
def _check_values(
    geometry: Geometry, a_BN: Tensor, b_BM: Tensor, epsilon_B: Tensor, mass_B: Tensor | None, *, balanced: bool
) -> None:
    """Compute every check on the device, wait once, then say which pair is wrong."""
    a_total_B, b_total_B = a_BN.sum(1), b_BM.sum(1)
    unequal_B = (a_total_B - b_total_B).abs() > 1e-4 * torch.maximum(a_total_B, b_total_B)
    findings = {
        **geometry.not_finite(),
        "a mass of x is negative or not finite": ~((a_BN >= 0) & (a_BN < float("inf"))).all(1),
        "a mass of y is negative or not finite": ~((b_BM >= 0) & (b_BM < float("inf"))).all(1),
        "x has no tokens inside its mask, or no mass; drop such pairs": a_total_B == 0,
        "y has no tokens inside its mask, or no mass; drop such pairs": b_total_B == 0,
        "epsilon is not a finite number above 0": ~((epsilon_B > 0) & (epsilon_B < float("inf"))),
    }
    unequal = "the masses of x and y differ; scale them to one sum, in float32, or pass rho for an unbalanced problem"
    too_much = "mass is not a number above 0 and at most the smaller side's mass"
    if balanced:
        findings[unequal] = unequal_B
    if mass_B is not None:
        # The totals are rounded sums, so a request for all of the mass must not fail by a rounding.
        most_B = torch.minimum(a_total_B, b_total_B) * (1 + 1e-5)
        findings[too_much] = ~((mass_B > 0) & (mass_B <= most_B))
    flags_KB = torch.stack(list(findings.values()))
    if not bool(flags_KB.any()):
        return
    # Reported in the order above: a NaN would otherwise be announced as whatever it spoils further down.
    for what, flag_B in zip(findings, flags_KB.tolist(), strict=True):
        if any(flag_B):
            pairs = [pair for pair, wrong in enumerate(flag_B) if wrong]
            listed = ", ".join(map(str, pairs[:8])) + (", ..." if len(pairs) > 8 else "")
            found = ""
            if what in (unequal, too_much):
                found = f": x has {a_total_B[pairs[0]]:.6g}, y {b_total_B[pairs[0]]:.6g}"
                found += "" if mass_B is None else f", mass is {mass_B[pairs[0]]:.6g}"
            raise TransportError(f"{what} (pair {listed} of {len(flag_B)}{found})")
