"""Batches without padding: the tokens of all pairs one after the other, as variable-length attention takes them.

Pairs are grouped by length so that at most a quarter of a group's kernel belongs to tokens that do not exist, and pairs
of one length waste nothing; the features of a whole padded batch never exist. Groups run one after the other.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optical_scale.errors import TransportError
from optical_scale.transport.choose import Settings, fusable
from optical_scale.transport.gradient import SinkhornCost, short_cost, sinkhorn_cost
from optical_scale.transport.output import SinkhornOutput
from optical_scale.transport.solve import solve
from optical_scale.transport.triton.short import ShortPairs

# Share of a group's kernel entries that must belong to existing tokens.
_FILLED = 0.75
_PER_PAIR = ("epsilon", "mass")
_PADDED_ONLY = {
    "mask_x_BN": "cu_seqlens_x says which tokens exist",
    "mask_y_BM": "cu_seqlens_y says which tokens exist",
    "start": "packed pairs start from zero",
}
# Where pairs begin and end, as variable-length attention takes it.
Offsets = Tensor | Sequence[int] | NDArray[np.integer[Any]]
Result = TypeVar("Result")


@dataclass(frozen=True)
class PackedGroup:
    """Pairs of similar lengths that are solved together, padded to the longest of them.

    Attributes:
        pairs: their numbers in the batch, (G,).
        index_x_BN: the place of each token in the packed x, (G, N); of padding, the place of the pair's first token.
        index_y_BM: the same for y.
        mask_x_BN: which places are filled.
        mask_y_BM: the same for y.
    """

    pairs: Tensor
    index_x_BN: Tensor
    index_y_BM: Tensor
    mask_x_BN: Tensor
    mask_y_BM: Tensor


@dataclass(frozen=True)
class PackedOutput:
    """Solutions of packed pairs, in the callers' order.

    Attributes:
        f_X: row potentials of all pairs, packed as x is.
        g_Y: column potentials, packed as y is.
        marginal_error_B: per pair; see :class:`~optical_scale.transport.output.SinkhornOutput`.
        iterations_B: per pair.
        converged_B: per pair.
        groups: which pairs were solved together, and their padded solution.
    """

    f_X: Tensor
    g_Y: Tensor
    marginal_error_B: Tensor
    iterations_B: Tensor
    converged_B: Tensor
    groups: tuple[tuple[PackedGroup, SinkhornOutput], ...]

    def barycentric(self, values_YE: Tensor) -> Tensor:
        """The plan-weighted mean of packed values (Y, E) for each token of x, (X, E)."""
        if values_YE.ndim != 2 or len(values_YE) != len(self.g_Y):
            raise TransportError(
                f"values have shape {tuple(values_YE.shape)}; expected ({len(self.g_Y)}, any width), packed as y was"
            )
        result = values_YE.new_zeros(len(self.f_X), values_YE.shape[1], dtype=self.f_X.dtype)
        for group, output in self.groups:
            image_BNE = output.barycentric(values_YE[group.index_y_BM])
            result[group.index_x_BN[group.mask_x_BN]] = image_BNE[group.mask_x_BN]
        return result

    def primal_cost(self) -> Tensor:
        """``<P, C>`` of each pair, (B,)."""
        result = torch.empty_like(self.marginal_error_B)
        for group, output in self.groups:
            result[group.pairs] = output.primal_cost()
        return result


def solve_packed(
    x_XD: Tensor, y_YD: Tensor, cu_seqlens_x: Offsets, cu_seqlens_y: Offsets, **options: Any
) -> PackedOutput:
    """:func:`~optical_scale.transport.solve.solve` for packed pairs.

    Args:
        x_XD: the tokens of all first sides, (X, D).
        y_YD: the tokens of all second sides, (Y, D).
        cu_seqlens_x: (B + 1,) integers that rise from 0 to X: pair b holds tokens ``cu[b]`` to ``cu[b + 1]``.
        cu_seqlens_y: the same for y.
        options: as ``solve``, with marginals (X,) and (Y,) packed as the tokens are; no masks, no ``start``.

    Returns:
        The solutions, without gradient.

    Raises:
        TransportError: offsets that do not describe the tokens, a pair without tokens, or as ``solve``.
    """
    parts = _by_group(_Batch.checked(x_XD, y_YD, cu_seqlens_x, cu_seqlens_y, options), solve)
    f_X, g_Y = (x_XD.new_zeros(len(t), dtype=torch.float64) for t in (x_XD, y_YD))
    for group, output in parts:
        f_X[group.index_x_BN[group.mask_x_BN]] = output.f_BN[group.mask_x_BN].to(f_X)
        g_Y[group.index_y_BM[group.mask_y_BM]] = output.g_BM[group.mask_y_BM].to(g_Y)
    dtype = parts[0][1].f_BN.dtype
    error_B, iterations_B, converged_B = (
        _in_order([(g.pairs, getattr(o, name)) for g, o in parts])
        for name in ("marginal_error_B", "iterations_B", "converged_B")
    )
    return PackedOutput(f_X.to(dtype), g_Y.to(dtype), error_B, iterations_B, converged_B, tuple(parts))


def sinkhorn_cost_packed(
    x_XD: Tensor, y_YD: Tensor, cu_seqlens_x: Offsets, cu_seqlens_y: Offsets, **options: Any
) -> SinkhornCost:
    """:func:`~optical_scale.transport.gradient.sinkhorn_cost` for packed pairs; gradients are packed too.

    Args:
        x_XD: as :func:`solve_packed`.
        y_YD: as :func:`solve_packed`.
        cu_seqlens_x: as :func:`solve_packed`.
        cu_seqlens_y: as :func:`solve_packed`.
        options: as ``sinkhorn_cost``, with packed marginals; no masks, no ``start``.

    Returns:
        Costs and diagnostics in the callers' order; the choice is that of the largest group.

    Raises:
        TransportError: as :func:`solve_packed` and ``sinkhorn_cost``.
    """
    batch = _Batch.checked(x_XD, y_YD, cu_seqlens_x, cu_seqlens_y, options)
    fused = _fused(batch)
    if fused is not None:
        return fused
    parts = [(group.pairs, cost) for group, cost in _by_group(batch, sinkhorn_cost)]
    names = [name for name in SinkhornCost.__slots__ if name.endswith("_B")]
    merged = {name: _in_order([(pairs, getattr(cost, name)) for pairs, cost in parts]) for name in names}
    largest = max(parts, key=lambda part: len(part[0]))[1]
    return replace(largest, **merged)  # type: ignore[arg-type]


class _Batch(NamedTuple):
    """Checked arguments: tokens, where each pair begins and ends (on the host, as they decide shapes), and options."""

    x_XD: Tensor
    y_YD: Tensor
    ends_x: Tensor
    ends_y: Tensor
    options: dict[str, Any]

    @classmethod
    def checked(cls, x_XD: Tensor, y_YD: Tensor, cu_x: Offsets, cu_y: Offsets, options: dict[str, Any]) -> "_Batch":
        """Everything that can be said about the batch before it is divided, in its own terms."""
        sides: dict[str, Any] = {"x": x_XD, "y": y_YD}
        for name, x in sides.items():
            if not isinstance(x, Tensor):
                raise TransportError(f"{name} is a {type(x).__name__}; expected a torch.Tensor")
            if x.ndim != 2 or not x.is_floating_point() or x.shape[1] == 0:
                raise TransportError(f"{name} is {x.dtype} {tuple(x.shape)}; expected floating (tokens, width)")
        if x_XD.shape[1] != y_YD.shape[1]:
            raise TransportError(
                f"x {tuple(x_XD.shape)} and y {tuple(y_YD.shape)} must agree in width (last); "
                "project one side if the encoders differ in width"
            )
        if x_XD.device != y_YD.device:
            raise TransportError(f"x is on {x_XD.device}, y on {y_YD.device}; move them to one device")
        ends_x, ends_y = _ends("x", cu_x, len(x_XD)), _ends("y", cu_y, len(y_YD))
        if len(ends_x) != len(ends_y):
            raise TransportError(f"cu_seqlens_x holds {len(ends_x) - 1} pairs, cu_seqlens_y {len(ends_y) - 1}")
        return cls(x_XD, y_YD, ends_x, ends_y, _options(options, x_XD, y_YD, len(ends_x) - 1))

    @property
    def pairs(self) -> int:
        """How many."""
        return len(self.ends_x) - 1


def _ends(side: str, cu_seqlens: Offsets, tokens: int) -> Tensor:
    """Offsets on the host that are known to divide the tokens among pairs."""
    name, ends = f"cu_seqlens_{side}", torch.as_tensor(cu_seqlens)
    if ends.ndim != 1 or ends.is_floating_point() or ends.dtype == torch.bool:
        raise TransportError(f"{name} is {ends.dtype} {tuple(ends.shape)}; expected integers (pairs + 1,)")
    if len(ends) < 2:
        raise TransportError(f"{name} has shape {tuple(ends.shape)}, which is no pair; expected (pairs + 1,)")
    ends = ends.to("cpu", torch.int64)
    lengths, rise = ends.diff(), f"rise from 0 to the {tokens} tokens of {side}"
    if bool((lengths < 0).any()):
        pair = int((lengths < 0).nonzero()[0])
        raise TransportError(f"{name} falls from {ends[pair]} to {ends[pair + 1]} in pair {pair}; it must {rise}")
    if ends[0] != 0 or ends[-1] != tokens:
        raise TransportError(f"{name} must {rise}, found {ends[0]} to {ends[-1]}")
    if bool((lengths == 0).any()):
        pair = int((lengths == 0).nonzero()[0])
        raise TransportError(f"pair {pair} of {name} is an empty sequence and has no transport plan; drop it")
    return ends


def _options(options: dict[str, Any], x_XD: Tensor, y_YD: Tensor, pairs: int) -> dict[str, Any]:
    """Options that groups can take their part of."""
    options = dict(options)
    for name, why in _PADDED_ONLY.items():
        if options.pop(name, None) is not None:
            raise TransportError(f"{name} is an option of padded pairs: {why}; leave it unset")
    for name, x in (("marginal_x", x_XD), ("marginal_y", y_YD)):
        if options.get(name) is None:
            continue
        marginal = options[name] = torch.as_tensor(options[name], device=x.device)
        if marginal.shape != x.shape[:1]:
            raise TransportError(
                f"{name} has shape {tuple(marginal.shape)}; expected ({len(x)},), packed as the tokens"
            )
    for name in _PER_PAIR:
        if options.get(name) is None:
            continue
        value = torch.as_tensor(options[name])
        if value.shape not in ((), (pairs,)):
            raise TransportError(
                f"{name} has shape {tuple(value.shape)}; expected a number or ({pairs},), one per pair"
            )
        # A number stays one: it says without a look at the device which domain will do.
        options[name] = value if value.ndim else options[name]
    return options


def _fused(batch: _Batch) -> SinkhornCost | None:
    """All pairs in one launch that reads them where they are, if they are short and a Triton backend is forced."""
    x_XD, y_YD, given = batch.x_XD, batch.y_YD, dict(batch.options)
    if not str(given.get("backend", "auto")).startswith("triton"):
        return None
    marginals = given.pop("marginal_x", None), given.pop("marginal_y", None)
    if given.pop("gradient", "envelope") != "envelope" or given.pop("debias", False):
        return None
    settings, longest = Settings(**given), (int(batch.ends_x.diff().max()), int(batch.ends_y.diff().max()))
    domain = fusable(settings, x_XD, y_YD, *marginals, longest=longest)
    if domain is None:
        return None
    ends_x, ends_y = (ends.to(x_XD.device) for ends in (batch.ends_x, batch.ends_y))
    pairs = ShortPairs(
        batch.pairs, *longest, marginal_x=marginals[0], marginal_y=marginals[1], ends_x=ends_x, ends_y=ends_y
    )
    return short_cost(settings, domain, x_XD, y_YD, pairs)


def _in_order(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    order_B = torch.cat([pairs for pairs, _ in parts])
    return torch.cat([values for _, values in parts])[order_B.argsort()]


def _by_group(batch: _Batch, function: Callable[..., Result]) -> list[tuple[PackedGroup, Result]]:
    """What a function of padded pairs returns for each group."""
    parts = []
    for pairs in _similar(batch.ends_x.diff().tolist(), batch.ends_y.diff().tolist()):
        group = _group(batch, pairs)
        tokens = batch.x_XD[group.index_x_BN], batch.y_YD[group.index_y_BM], group.mask_x_BN, group.mask_y_BM
        try:
            parts.append((group, function(*tokens, **_part(batch, group))))
        except TransportError as error:
            raise TransportError(_renumbered(str(error), pairs, batch.pairs)) from error
    return parts


def _group(batch: _Batch, pairs: list[int]) -> PackedGroup:
    chosen, device = torch.tensor(pairs), batch.x_XD.device
    index_x_BN, mask_x_BN = _places(batch.ends_x[chosen], batch.ends_x.diff()[chosen], device)
    index_y_BM, mask_y_BM = _places(batch.ends_y[chosen], batch.ends_y.diff()[chosen], device)
    return PackedGroup(chosen.to(device), index_x_BN, index_y_BM, mask_x_BN, mask_y_BM)


def _part(batch: _Batch, group: PackedGroup) -> dict[str, Any]:
    """The options of a group's pairs."""
    options = dict(batch.options)
    for name, index in (("marginal_x", group.index_x_BN), ("marginal_y", group.index_y_BM)):
        if options.get(name) is not None:
            options[name] = options[name][index]
    for name in _PER_PAIR:
        value = options.get(name)
        if isinstance(value, Tensor) and value.ndim:
            options[name] = value[group.pairs.to(value.device)]
    return options


def _renumbered(message: str, pairs: list[int], total: int) -> str:
    """An error about pairs of a group, with their numbers in the batch."""

    def in_batch(found: re.Match[str]) -> str:
        return f"(pair {re.sub('[0-9]+', lambda number: str(pairs[int(number[0])]), found[1])} of {total}"

    return re.sub(r"\(pair ([0-9, .]+) of [0-9]+", in_batch, message)


def _similar(lengths_x: list[int], lengths_y: list[int]) -> list[list[int]]:
    """Pairs in groups whose padded kernels are mostly filled; longest first, so that memory peaks at the start."""
    order = sorted(range(len(lengths_x)), key=lambda pair: (-lengths_x[pair], -lengths_y[pair], pair))
    groups: list[list[int]] = []
    filled = widest = 0
    for pair in order:
        size, longest_y = lengths_x[pair] * lengths_y[pair], max(widest, lengths_y[pair])
        if groups and filled + size >= _FILLED * (len(groups[-1]) + 1) * lengths_x[groups[-1][0]] * longest_y:
            groups[-1].append(pair)
            filled, widest = filled + size, longest_y
        else:
            groups.append([pair])
            filled, widest = size, lengths_y[pair]
    return [sorted(group) for group in groups]


def _places(starts: Tensor, lengths: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    offsets_T = torch.arange(int(lengths.max()))
    mask_BT = offsets_T < lengths[:, None]
    # Places beyond a sequence point at its first token; the mask keeps them from being read.
    index_BT = starts[:, None] + offsets_T.where(mask_BT, torch.zeros_like(offsets_T))
    return index_BT.to(device), mask_BT.to(device)
