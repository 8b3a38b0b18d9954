"""Batches without padding: the tokens of all pairs one after the other, as variable-length attention takes them.

Pairs are grouped by length so that at most a quarter of a group's kernel belongs to tokens that do not exist, and pairs
of one length waste nothing; the features of a whole padded batch never exist. Groups run one after the other.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
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


@dataclass(frozen=True)
class _Group:
    """Pairs of similar lengths: where their tokens are in the packed tensors, and which places are filled."""

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
        groups: pair numbers and the padded solution of each group.
    """

    f_X: Tensor
    g_Y: Tensor
    marginal_error_B: Tensor
    iterations_B: Tensor
    converged_B: Tensor
    groups: tuple[tuple[_Group, SinkhornOutput], ...]

    def barycentric(self, values_YE: Tensor) -> Tensor:
        """The plan-weighted mean of packed values (Y, E) for each token of x, (X, E)."""
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
    x_XD: Tensor, y_YD: Tensor, cu_seqlens_x: Tensor, cu_seqlens_y: Tensor, **options: Any
) -> PackedOutput:
    """:func:`~optical_scale.transport.solve.solve` for packed pairs.

    Args:
        x_XD: the tokens of all first sides, (X, D).
        y_YD: the tokens of all second sides, (Y, D).
        cu_seqlens_x: (B + 1,) integers from 0 to X: pair b holds tokens ``cu[b]`` to ``cu[b + 1]``.
        cu_seqlens_y: the same for y.
        options: as ``solve``, with packed marginals; not ``start``.

    Returns:
        The solutions, without gradient.

    Raises:
        TransportError: offsets that do not describe the tokens, a pair without tokens, or as ``solve``.
    """
    parts = []
    f_X, g_Y = (x_XD.new_zeros(len(t), dtype=torch.float64) for t in (x_XD, y_YD))
    for group, tokens, chosen in _groups(x_XD, y_YD, cu_seqlens_x, cu_seqlens_y, options):
        output = solve(*tokens, **chosen)
        parts.append((group, output))
        f_X[group.index_x_BN[group.mask_x_BN]] = output.f_BN[group.mask_x_BN].to(f_X)
        g_Y[group.index_y_BM[group.mask_y_BM]] = output.g_BM[group.mask_y_BM].to(g_Y)
    dtype = parts[0][1].f_BN.dtype
    error_B, iterations_B, converged_B = (
        _in_order([(g.pairs, getattr(o, name)) for g, o in parts])
        for name in ("marginal_error_B", "iterations_B", "converged_B")
    )
    return PackedOutput(f_X.to(dtype), g_Y.to(dtype), error_B, iterations_B, converged_B, tuple(parts))


def sinkhorn_cost_packed(
    x_XD: Tensor, y_YD: Tensor, cu_seqlens_x: Tensor, cu_seqlens_y: Tensor, **options: Any
) -> SinkhornCost:
    """:func:`~optical_scale.transport.gradient.sinkhorn_cost` for packed pairs; gradients are packed too.

    Args:
        x_XD: as :func:`solve_packed`.
        y_YD: as :func:`solve_packed`.
        cu_seqlens_x: as :func:`solve_packed`.
        cu_seqlens_y: as :func:`solve_packed`.
        options: as ``sinkhorn_cost``, with packed marginals; not ``start``.

    Returns:
        Costs and diagnostics in the callers' order; the choice is that of the largest group.

    Raises:
        TransportError: as :func:`solve_packed` and ``sinkhorn_cost``.
    """
    fused = _fused(x_XD, y_YD, cu_seqlens_x, cu_seqlens_y, options)
    if fused is not None:
        return fused
    parts = [
        (group.pairs, sinkhorn_cost(*tokens, **chosen))
        for group, tokens, chosen in _groups(x_XD, y_YD, cu_seqlens_x, cu_seqlens_y, options)
    ]
    names = [name for name in SinkhornCost.__slots__ if name.endswith("_B")]
    merged = {name: _in_order([(pairs, getattr(cost, name)) for pairs, cost in parts]) for name in names}
    largest = max(parts, key=lambda part: len(part[0]))[1]
    return replace(largest, **merged)  # type: ignore[arg-type]


def _fused(x_XD: Tensor, y_YD: Tensor, cu_x: Tensor, cu_y: Tensor, options: dict[str, Any]) -> SinkhornCost | None:
    """All pairs in one launch that reads them where they are, if they are short and a Triton backend is forced."""
    given = dict(options)
    if not str(given.get("backend", "auto")).startswith("triton"):
        return None
    marginals = given.pop("marginal_x", None), given.pop("marginal_y", None)
    if given.pop("gradient", "envelope") != "envelope" or given.pop("debias", False) or "start" in given:
        return None
    lengths_x, lengths_y = _lengths("cu_seqlens_x", cu_x, x_XD)[1], _lengths("cu_seqlens_y", cu_y, y_YD)[1]
    settings, longest = Settings(**given), (int(lengths_x.max()), int(lengths_y.max()))
    domain = fusable(settings, x_XD, y_YD, *marginals, longest=longest)
    # Whatever does not fit together is left to the general way, whose errors say what.
    fits = [m is None or m.shape == t.shape[:1] for m, t in zip(marginals, (x_XD, y_YD), strict=True)]
    if domain is None or len(lengths_x) != len(lengths_y) or x_XD.shape[1] != y_YD.shape[1] or not all(fits):
        return None
    ends_x, ends_y = (cu.to(x_XD.device, torch.int64) for cu in (cu_x, cu_y))
    pairs = ShortPairs(
        len(lengths_x), *longest, marginal_x=marginals[0], marginal_y=marginals[1], ends_x=ends_x, ends_y=ends_y
    )
    return short_cost(settings, domain, x_XD, y_YD, pairs)


def _in_order(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    order_B = torch.cat([pairs for pairs, _ in parts])
    return torch.cat([values for _, values in parts])[order_B.argsort()]


def _groups(
    x_XD: Tensor, y_YD: Tensor, cu_x: Tensor, cu_y: Tensor, options: dict[str, Any]
) -> Iterator[tuple[_Group, tuple[Tensor, ...], dict[str, Any]]]:
    if "start" in options:
        raise TransportError("packed pairs start from zero; leave start unset")
    starts_x, lengths_x = _lengths("cu_seqlens_x", cu_x, x_XD)
    starts_y, lengths_y = _lengths("cu_seqlens_y", cu_y, y_YD)
    if len(lengths_x) != len(lengths_y):
        raise TransportError(f"cu_seqlens_x holds {len(lengths_x)} pairs, cu_seqlens_y {len(lengths_y)}")
    for pairs in _similar(lengths_x.tolist(), lengths_y.tolist()):
        chosen = torch.tensor(pairs)
        index_x_BN, mask_x_BN = _places(starts_x[chosen], lengths_x[chosen], x_XD.device)
        index_y_BM, mask_y_BM = _places(starts_y[chosen], lengths_y[chosen], y_YD.device)
        settings = dict(options)
        for name, index in (("marginal_x", index_x_BN), ("marginal_y", index_y_BM)):
            if settings.get(name) is not None:
                settings[name] = settings[name][index]
        for name in _PER_PAIR:
            value = settings.get(name)
            if isinstance(value, Tensor) and value.ndim == 1:
                settings[name] = value[chosen.to(value.device)]
        group = _Group(chosen.to(x_XD.device), index_x_BN, index_y_BM, mask_x_BN, mask_y_BM)
        yield group, (x_XD[index_x_BN], y_YD[index_y_BM], mask_x_BN, mask_y_BM), settings


def _lengths(name: str, cu: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Starts and lengths on the host, because they decide shapes."""
    if tokens.ndim != 2 or cu.ndim != 1 or cu.is_floating_point() or len(cu) < 2:
        raise TransportError(
            f"expected tokens (all, width) and integer {name} (pairs + 1,), "
            f"found {tuple(tokens.shape)} and {cu.dtype} {tuple(cu.shape)}"
        )
    cu = cu.to("cpu", torch.int64)
    lengths = cu.diff()
    if cu[0] != 0 or cu[-1] != len(tokens) or bool((lengths < 0).any()):
        raise TransportError(f"{name} must rise from 0 to the {len(tokens)} tokens, found {cu[0]} to {cu[-1]}")
    if bool((lengths == 0).any()):
        pair = int((lengths == 0).nonzero()[0])
        raise TransportError(f"pair {pair} of {name} is an empty sequence and has no transport plan; drop it")
    return cu[:-1], lengths


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
    return groups


def _places(starts: Tensor, lengths: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    offsets_T = torch.arange(int(lengths.max()))
    mask_BT = offsets_T < lengths[:, None]
    # Places beyond a sequence point at its first token; the mask keeps them from being read.
    index_BT = starts[:, None] + offsets_T.where(mask_BT, torch.zeros_like(offsets_T))
    return index_BT.to(device), mask_BT.to(device)
