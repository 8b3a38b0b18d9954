"""Costs between two sets of token vectors, evaluated tile by tile.

Every cost here is bilinear in prepared features, ``C_ij = constant + row_i + column_j - scale * <p_i, q_j>``, so a tile
is one matrix product and the gradient of ``<P, C>`` needs nothing but ``P q``. The full N x M matrix exists only when
asked for.
"""

from copy import copy
from typing import Literal, assert_never

import torch
from torch import Tensor

from optical_scale.transport import native

CostName = Literal["cosine", "sqeuclidean", "dot"]
Side = Literal["x", "y"]
# Elements of a temporary that stays near a core.
_CPU_ENTRIES = 1 << 18


def working_dtype(x: Tensor) -> torch.dtype:
    """float64 for float64 inputs, float32 for everything else: half precision is only ever a storage format here."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


class Geometry:
    """Two prepared token sets and the cost between them.

    Attributes:
        p_BND: features of the first side, zero outside its mask.
        q_BMD: features of the second side, zero outside its mask.
        row_BN: additive cost of each row, or None.
        column_BM: additive cost of each column, or None.
        constant: added to every entry.
        scale: factor of the inner product.
        plain: whether ``exp(scale <p, q> / epsilon)`` and the constant are all of the kernel.
        unit_length: whether features are divided by their norm.
        raw: the vectors as they were given, for kernels that multiply half precision exactly; None if unknown.
        products_BNM: ``<p_i, q_j>``, where several epsilons are to share them; None if they are made when needed.
    """

    constant: float = 0.0
    scale: float = 1.0
    unit_length: bool = False
    raw: tuple[Tensor, Tensor] | None = None
    products_BNM: Tensor | None = None

    def __init__(self, p_BND: Tensor, q_BMD: Tensor, row_BN: Tensor | None, column_BM: Tensor | None) -> None:
        self.p_BND, self.q_BMD, self.row_BN, self.column_BM = p_BND, q_BMD, row_BN, column_BM

    @property
    def shape(self) -> tuple[int, int, int]:
        """Pairs, rows, columns."""
        return self.p_BND.shape[0], self.p_BND.shape[1], self.q_BMD.shape[1]

    @property
    def plain(self) -> bool:
        """See the class."""
        return self.row_BN is None and self.column_BM is None

    def cost(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Costs of rows ``start`` to ``stop`` against every column, (B, stop - start, M); a new tensor."""
        rows = slice(start, stop)
        kept = self.products_BNM
        cost_BRM = torch.matmul(self.p_BND[:, rows], self.q_BMD.transpose(1, 2)) if kept is None else kept[:, rows]
        cost_BRM = cost_BRM * -self.scale
        if self.row_BN is not None:
            cost_BRM = cost_BRM + self.row_BN[:, rows, None]
        if self.column_BM is not None:
            cost_BRM = cost_BRM + self.column_BM[:, None, :]
        return cost_BRM + self.constant if self.constant else cost_BRM

    def multiplied(self) -> "Geometry":
        """The same cost with its products, (B, N, M), kept."""
        kept = copy(self)
        kept.products_BNM = torch.bmm(self.p_BND, self.q_BMD.transpose(1, 2))
        return kept

    def pairs(self, part: slice, columns: slice = slice(None)) -> "Geometry":
        """The cost of some pairs of the batch, and of some columns, as views; for backends that work on parts of it."""
        one = Geometry(
            self.p_BND[part],
            self.q_BMD[part, columns],
            None if self.row_BN is None else self.row_BN[part],
            None if self.column_BM is None else self.column_BM[part, columns],
        )
        one.constant, one.scale = self.constant, self.scale
        one.products_BNM = None if self.products_BNM is None else self.products_BNM[part, :, columns]
        return one

    def log_kernel(self, pair: int, rows: slice, epsilon: Tensor, out_RM: Tensor) -> Tensor:
        """``-C / epsilon`` of some rows of one pair, in a given buffer; additive terms included.

        Args:
            pair: which pair.
            rows: which rows.
            epsilon: of this pair, one element.
            out_RM: overwritten and returned.
        """
        # The factor goes to the rows, which are few, and costs no pass over the panel.
        torch.mm(self.p_BND[pair, rows] * (self.scale / epsilon), self.q_BMD[pair].t(), out=out_RM)
        if self.constant:
            out_RM.sub_(self.constant / epsilon)
        if self.row_BN is not None:
            out_RM.sub_((self.row_BN[pair, rows] / epsilon).unsqueeze(1))
        if self.column_BM is not None:
            out_RM.sub_(self.column_BM[pair] / epsilon)
        return out_RM

    def not_finite(self) -> dict[str, Tensor]:
        """What may be wrong with the features, and for which pairs (B,) it is."""
        # NaN and infinity survive a sum, and finite float32 features that overflow it are of no use here.
        return _flagged(~torch.isfinite(self.p_BND.sum((1, 2))), ~torch.isfinite(self.q_BMD.sum((1, 2))))

    def cost_range(self) -> Tensor:
        """An upper bound of max(C) - min(C) of each pair, (B,)."""
        raise NotImplementedError

    def inner(self, product: Tensor, side: Side) -> Tensor:
        """``<p_i, (P q)_i>`` (B, N) for side "x", ``<q_j, (P^T p)_j>`` (B, M) for side "y"."""
        features = self.p_BND if side == "x" else self.q_BMD
        sweeps = _compiled(features, product)
        return _inner_rows(features, product) if sweeps is None else sweeps.inner_rows(features, product)

    def total_cost(self, inner: Tensor, mass_BN: Tensor, mass_BM: Tensor) -> Tensor:
        """``<P, C>`` of each pair, (B,).

        Args:
            inner: what :meth:`inner` returned, for either side.
            mass_BN: row sums of P.
            mass_BM: column sums of P.
        """
        total_B = -self.scale * inner.sum(1)
        if self.row_BN is not None:
            total_B = total_B + (self.row_BN * mass_BN).sum(1)
        if self.column_BM is not None:
            total_B = total_B + (self.column_BM * mass_BM).sum(1)
        return total_B + self.constant * mass_BN.sum(1) if self.constant else total_B

    def pull_back(self, product: Tensor, inner: Tensor, mass: Tensor, side: Side) -> Tensor:
        """Gradient of ``<P, C>`` with P constant, with respect to the raw vectors of one side.

        Args:
            product: ``P q`` (B, N, D) for side "x", ``P^T p`` (B, M, D) for side "y"; overwritten with the result.
            inner: what :meth:`inner` returned for this product.
            mass: the sums of P over the other side, (B, N) or (B, M).
            side: whose vectors.

        Returns:
            A tensor shaped like that side's vectors.
        """
        raise NotImplementedError


class CosineGeometry(Geometry):
    """``C_ij = 1 - <x_i, y_j> / (|x_i| |y_j|)``, in [0, 2]. A zero vector has cost 1 to everything and no gradient."""

    constant = 1.0
    unit_length = True

    def __init__(
        self, x_BND: Tensor, y_BMD: Tensor, mask_x_BN: Tensor | None = None, mask_y_BM: Tensor | None = None
    ) -> None:
        p_BND, self._inverse_norm_BN1 = unit_vectors(x_BND, mask_x_BN)
        same = y_BMD is x_BND and mask_y_BM is mask_x_BN
        q_BMD, self._inverse_norm_BM1 = (p_BND, self._inverse_norm_BN1) if same else unit_vectors(y_BMD, mask_y_BM)
        super().__init__(p_BND, q_BMD, None, None)

    def not_finite(self) -> dict[str, Tensor]:
        """See the base class; the lengths tell it too, and are a fraction of the data."""
        # Of a vector with NaN or infinity it is NaN; of one that is all but zero it may be infinite, which is no fault.
        return _flagged(
            torch.isnan(self._inverse_norm_BN1.sum((1, 2))), torch.isnan(self._inverse_norm_BM1.sum((1, 2)))
        )

    def cost_range(self) -> Tensor:
        """Two, by definition of the cosine."""
        return self.p_BND.new_full((self.p_BND.shape[0],), 2.0)

    def pull_back(self, product: Tensor, inner: Tensor, mass: Tensor, side: Side) -> Tensor:
        """See the base class: minus the part of the product orthogonal to the unit vector, over the norm."""
        unit, inverse_norm = (
            (self.p_BND, self._inverse_norm_BN1) if side == "x" else (self.q_BMD, self._inverse_norm_BM1)
        )
        sweeps = _compiled(unit, product)
        if sweeps is None:
            return product.addcmul_(unit, inner.unsqueeze(-1), value=-1.0).mul_(-inverse_norm)
        sweeps.pull_back_rows(product, unit, inverse_norm, inner)
        return product


class DotGeometry(Geometry):
    """``C_ij = -<x_i, y_j>``: unbounded below, so lengths matter."""

    def cost_range(self) -> Tensor:
        """Twice the product of the longest vectors."""
        return 2.0 * _longest(self.p_BND) * _longest(self.q_BMD)

    def pull_back(self, product: Tensor, inner: Tensor, mass: Tensor, side: Side) -> Tensor:
        """See the base class: minus the product."""
        return product.neg_()


class SquaredEuclideanGeometry(Geometry):
    """``C_ij = |x_i - y_j|^2``, without a factor one half."""

    scale = 2.0

    def cost_range(self) -> Tensor:
        """The squared sum of the longest vectors."""
        return (_longest(self.p_BND) + _longest(self.q_BMD)).square()

    def pull_back(self, product: Tensor, inner: Tensor, mass: Tensor, side: Side) -> Tensor:
        """See the base class: ``2 (mass_i x_i - (P y)_i)``."""
        vectors = self.p_BND if side == "x" else self.q_BMD
        return product.addcmul_(mass.unsqueeze(-1), vectors, value=-1.0).mul_(-2.0)


class MatrixGeometry(Geometry):
    """A cost that is given entry by entry. It has no features: what needs them goes through panels of the plan."""

    def __init__(self, cost_BNM: Tensor) -> None:
        empty = cost_BNM.new_empty(len(cost_BNM), 0, 0)
        super().__init__(empty, empty, None, None)
        self.cost_BNM = cost_BNM

    @property
    def shape(self) -> tuple[int, int, int]:
        """See the base class."""
        B, N, M = self.cost_BNM.shape
        return B, N, M

    @property
    def plain(self) -> bool:
        """Never: nothing bounds the entries themselves, only their range."""
        return False

    def cost(self, start: int = 0, stop: int | None = None) -> Tensor:
        """A copy of the entries, because callers may overwrite what they get."""
        return self.cost_BNM[:, start:stop].clone()

    def log_kernel(self, pair: int, rows: slice, epsilon: Tensor, out_RM: Tensor) -> Tensor:
        """See the base class."""
        return torch.div(self.cost_BNM[pair, rows], -epsilon, out=out_RM)

    def multiplied(self) -> "MatrixGeometry":
        """Itself: nothing is multiplied."""
        return self

    def pairs(self, part: slice, columns: slice = slice(None)) -> "MatrixGeometry":
        """See the base class."""
        return MatrixGeometry(self.cost_BNM[part, :, columns])

    def not_finite(self) -> dict[str, Tensor]:
        """See the base class."""
        what = "the cost holds NaN or infinity between existing tokens: forbid a match by a large finite cost"
        # Extremes keep NaN and infinity as a sum does, and do not overflow.
        lowest_B, largest_B = self.cost_BNM.amin((1, 2)), self.cost_BNM.amax((1, 2))
        return {what: ~(torch.isfinite(lowest_B) & torch.isfinite(largest_B))}

    def cost_range(self) -> Tensor:
        """Exactly."""
        cost_BNM = self.cost_BNM.detach()
        return cost_BNM.amax((1, 2)) - cost_BNM.amin((1, 2))


def build_geometry(
    cost: CostName, x_BND: Tensor, y_BMD: Tensor, mask_x_BN: Tensor | None, mask_y_BM: Tensor | None
) -> Geometry:
    """Prepare the cost between two token sets in the working dtype.

    Args:
        cost: which cost.
        x_BND: vectors of the first side, any floating dtype.
        y_BMD: vectors of the second side.
        mask_x_BN: bool, True for tokens that exist; whatever lies outside, NaN included, is never read.
        mask_y_BM: the same for the second side.

    Returns:
        The geometry; differentiable in x and y where autograd records.
    """
    if cost == "cosine":
        return CosineGeometry(x_BND, y_BMD, mask_x_BN, mask_y_BM)
    same = y_BMD is x_BND and mask_y_BM is mask_x_BN
    if cost == "sqeuclidean":
        # The distance does not see where the origin is, but |x|^2 + |y|^2 - 2 <x, y> loses digits far from it. The
        # mean of y alone, because ranks that share y may hold different rows.
        centre_B1D = _centre(y_BMD, mask_y_BM)
        shifted_BND = x_BND.to(centre_B1D.dtype) - centre_B1D
        x_BND, y_BMD = shifted_BND, shifted_BND if same else y_BMD.to(centre_B1D.dtype) - centre_B1D
    x_BND = _prepare(x_BND, mask_x_BN)
    y_BMD = x_BND if same else _prepare(y_BMD, mask_y_BM)
    match cost:
        case "dot":
            # Copies, as the other costs make them: a solution does not change with its input.
            p_BND = x_BND.clone()
            return DotGeometry(p_BND, p_BND if same else y_BMD.clone(), None, None)
        case "sqeuclidean":
            return SquaredEuclideanGeometry(x_BND, y_BMD, x_BND.square().sum(-1), y_BMD.square().sum(-1))
        case _:
            assert_never(cost)


@torch.no_grad()
def _centre(x_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
    x_BTD = _prepare(x_BTD, mask_BT)
    count_B11 = x_BTD.shape[1] if mask_BT is None else mask_BT.sum(1).clamp_min(1).to(x_BTD.dtype)[:, None, None]
    return x_BTD.sum(1, keepdim=True) / count_B11


def _prepare(x_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
    x_BTD = x_BTD.to(working_dtype(x_BTD))
    # A fill, not a product: zero times the NaN that padding may hold is NaN.
    return x_BTD if mask_BT is None else x_BTD.masked_fill(~mask_BT.unsqueeze(-1), 0.0)


def unit_vectors(x_BTD: Tensor, mask_BT: Tensor | None) -> tuple[Tensor, Tensor]:
    """Vectors of length one in the working dtype, and inverse lengths (B, T, 1).

    Args:
        x_BTD: vectors, of any length from 1e-30 to 1e+30.
        mask_BT: which of them exist; the others become zero, as zero vectors do.

    Returns:
        Unit vectors, differentiable where autograd records, and the inverse lengths, which are not.
    """
    if not (torch.is_grad_enabled() and x_BTD.requires_grad):
        sweeps = _compiled(x_BTD)
        if sweeps is not None:
            return sweeps.unit_rows(x_BTD, mask_BT)
        found = _ordinary_unit_vectors(x_BTD, mask_BT) if x_BTD.is_cpu else None
        if found is not None:
            return found
    x_BTD = _prepare(x_BTD, mask_BT)
    # Dividing by the largest entry first keeps squares of extreme lengths in float32's range.
    values_BTD = x_BTD.detach()
    # Two reductions: on CPUs the infinity norm, or both extremes at once, take over ten times as long.
    largest_BT1 = torch.maximum(values_BTD.amax(-1, keepdim=True), -values_BTD.amin(-1, keepdim=True))
    is_zero_BT1 = largest_BT1 == 0
    if x_BTD.requires_grad:
        x_BTD = x_BTD.masked_fill(is_zero_BT1, 0.0)  # a zero vector has no direction, hence no gradient
    scaled_BTD = x_BTD / largest_BT1.masked_fill(is_zero_BT1, 1.0)
    norm_BT1 = torch.linalg.vector_norm(scaled_BTD, dim=-1, keepdim=True).masked_fill(is_zero_BT1, 1.0)
    # Two reciprocals: the product of the two lengths may overflow where their inverses do not.
    inverse_norm_BT1 = (norm_BT1.detach().reciprocal() * largest_BT1.reciprocal()).masked_fill(is_zero_BT1, 0.0)
    unit_BTD = scaled_BTD / norm_BT1 if scaled_BTD.requires_grad else scaled_BTD.div_(norm_BT1)
    return unit_BTD, inverse_norm_BT1


def _ordinary_unit_vectors(x_BTD: Tensor, mask_BT: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """As :func:`unit_vectors` in half the passes; none if a length is zero, not finite, or its square out of range."""
    # A copy of its own, in order, because rows of it are overwritten through another shape.
    x_BTD = x_BTD.to(working_dtype(x_BTD)).contiguous()
    norm_BT1 = torch.linalg.vector_norm(x_BTD, dim=-1, keepdim=True)
    absent_BT1 = torch.zeros_like(norm_BT1, dtype=torch.bool) if mask_BT is None else ~mask_BT.unsqueeze(-1)
    norm_BT1.masked_fill_(absent_BT1, 1.0)
    if not bool(((norm_BT1 > 1e-15) & (norm_BT1 < 1e15)).all()):
        return None
    unit_BTD = x_BTD / norm_BT1
    # By rows: a masked fill visits every entry and takes longer than the division.
    unit_BTD.view(-1, unit_BTD.shape[2]).index_fill_(0, absent_BT1.flatten().nonzero().squeeze(1), 0.0)
    return unit_BTD, norm_BT1.reciprocal_().masked_fill_(absent_BT1, 0.0)


def _inner_rows(left_BTD: Tensor, right_BTD: Tensor) -> Tensor:
    if not left_BTD.is_cpu:
        return (left_BTD * right_BTD).sum(-1)
    # Some pairs at a time, in memory that is used again: new pages take longer than the products.
    pairs = max(1, _CPU_ENTRIES // max(1, left_BTD[:1].numel()))
    parts = zip(torch.split(left_BTD, pairs), torch.split(right_BTD, pairs), strict=True)
    return torch.cat([(left * right).sum(-1) for left, right in parts])


def _compiled(*tensors: Tensor) -> native.Sweeps | None:
    """The compiled sweeps if they may take these tensors and autograd does not look."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return None
    return native.sweeps() if native.usable(*tensors) and all(t.is_contiguous() for t in tensors) else None


def _flagged(x_B: Tensor, y_B: Tensor) -> dict[str, Tensor]:
    advice = "holds NaN or infinity: look at the encoder's output or loss scale"
    return {f"x {advice}": x_B, f"y {advice}": y_B}


def _longest(x_BTD: Tensor) -> Tensor:
    length_BT: Tensor = torch.linalg.vector_norm(x_BTD, dim=-1)
    return length_BT.amax(1)
