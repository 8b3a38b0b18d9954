"""A collection of texts or images -> unit vectors on every rank, with the work shared equally.

Every rank runs the same number of forward passes of the same sizes. That is what sharded (ZeRO-3) encoders need: a
forward pass there is a collective operation, so one pass too many on one rank waits for ever.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from optical_scale.batch import TokenStates
from optical_scale.errors import EvaluationError
from optical_scale.runtime.world import World

EncodeText = Callable[[Sequence[str]], TokenStates]
"""Texts to token vectors, one row per text."""
EncodeImages = Callable[[Sequence[bytes]], TokenStates]
"""Encoded image files to patch vectors, one row per image."""
Item = TypeVar("Item", str, bytes)


@dataclass(frozen=True, slots=True)
class EncodedSet:
    """Vectors of I items, token vectors packed one item after the other without padding.

    Attributes:
        x_TD: unit-length vectors of all tokens that take part in token-level scores.
        offsets: int64 (I + 1,); item i owns rows ``offsets[i]`` to ``offsets[i + 1]``, at least one.
        dense_ID: unit-length pooled embeddings, float32.
    """

    x_TD: Tensor
    offsets: Tensor
    dense_ID: Tensor

    def __len__(self) -> int:
        return self.dense_ID.shape[0]

    @property
    def lengths(self) -> Tensor:
        """Tokens of each item, int64 (I,)."""
        return self.offsets.diff()

    def span(self, start: int, stop: int) -> "EncodedSet":
        """Items ``start`` to ``stop`` (exclusive), sharing memory with this set."""
        first, last = (int(self.offsets[i]) for i in (start, stop))
        return EncodedSet(self.x_TD[first:last], self.offsets[start : stop + 1] - first, self.dense_ID[start:stop])

    def pick(self, positions: Sequence[int]) -> "EncodedSet":
        """The items at ``positions``, in that order; this set itself when those are all items in order."""
        if list(positions) == list(range(len(self))):
            return self
        chosen = torch.tensor(list(positions), dtype=torch.long, device=self.offsets.device)
        lengths = self.lengths[chosen]
        offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        # Row r of the result is this many rows after the start of its item.
        within = torch.arange(int(offsets[-1]), device=chosen.device) - offsets[:-1].repeat_interleave(lengths)
        rows = self.offsets[chosen].repeat_interleave(lengths) + within
        return EncodedSet(self.x_TD[rows], offsets, self.dense_ID[chosen])


def share_of(items: int, world: World) -> range:
    """The positions this rank works on: contiguous, equally many on every rank, running past the end on the last ranks.

    Positions ≥ ``items`` are padding: work on the last item in their place and drop the result.
    """
    size = -(-items // world.size)
    return range(world.rank * size, (world.rank + 1) * size)


def gather_shares(rows: Tensor, world: World) -> Tensor:
    """Rows of all ranks in rank order; every rank must bring the same shape (gloo on CPU, NCCL on GPU)."""
    if world.size == 1:
        return rows
    assert dist.get_world_size() == world.size, "world and process group disagree"
    parts = [torch.empty_like(rows) for _ in range(world.size)]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


@torch.no_grad()
def encode(
    items: Sequence[Item],
    encode_batch: Callable[[Sequence[Item]], TokenStates],
    *,
    batch_size: int,
    world: World,
    dtype: torch.dtype = torch.float32,
) -> EncodedSet:
    """Encode all items, each on one rank, and return all of them on every rank.

    Within a rank, items of similar length share a batch, longest first, so that little is spent on padding and a batch
    too large for memory fails at once.

    Args:
        items: texts or image files, the same on every rank.
        encode_batch: the encoder; its vectors decide the device of the result.
        batch_size: items per forward pass.
        world: this process among all; ``World()`` keeps the work on this process.
        dtype: of the token vectors; ``torch.float16`` halves memory and exchange at a precision of about 1e-3.

    Raises:
        EvaluationError: nothing to encode, a non-finite vector, or an item without any token. Raised on every rank.
    """
    if not items:
        raise EvaluationError("evaluation: the collection to encode is empty; check the data and its filters")
    share = share_of(len(items), world)
    mine = [items[min(position, len(items) - 1)] for position in share]
    by_length = sorted(range(len(mine)), key=lambda i: -len(mine[i]))
    tokens: list[Tensor] = [torch.empty(0)] * len(mine)
    dense: list[Tensor] = [torch.empty(0)] * len(mine)
    for start in range(0, len(mine), batch_size):
        chosen = by_length[start : start + batch_size]
        states = encode_batch([mine[i] for i in chosen])
        assert len(states) == len(chosen), f"the encoder returned {len(states)} rows for {len(chosen)} items"
        x_BTD, mask_BT = states.normalized().to(dtype), states.mask_BT.bool()
        for i, x_TD, mask_T, dense_D in zip(chosen, x_BTD, mask_BT, states.pooled(), strict=True):
            tokens[i], dense[i] = x_TD[mask_T], dense_D
    encoded = _gather(torch.cat(tokens), [len(t) for t in tokens], torch.stack(dense), len(items), world)
    _check(encoded, items)
    return encoded


def _gather(x_TD: Tensor, lengths: list[int], dense_ID: Tensor, items: int, world: World) -> EncodedSet:
    """Join the ranks' shares in order and cut the padding items, which are the last ones."""
    lengths_I = gather_shares(torch.tensor(lengths, device=x_TD.device), world)
    if world.size > 1:
        share_tokens = lengths_I.view(world.size, -1).sum(1).tolist()
        longest = max(share_tokens)
        padded_TD = torch.nn.functional.pad(x_TD, (0, 0, 0, longest - len(x_TD)))
        parts = gather_shares(padded_TD, world).view(world.size, longest, x_TD.shape[1])
        x_TD = torch.cat([part_TD[:used] for part_TD, used in zip(parts, share_tokens, strict=True)])
        dense_ID = gather_shares(dense_ID, world)
    offsets = torch.nn.functional.pad(lengths_I[:items].cumsum(0), (1, 0))
    return EncodedSet(x_TD[: int(offsets[-1])], offsets, dense_ID[:items])


def _check(encoded: EncodedSet, items: Sequence[str] | Sequence[bytes]) -> None:
    """Refuse what would turn into meaningless ranks; every rank holds the same set, so all of them raise."""
    empty = (encoded.lengths == 0).nonzero().flatten()
    if len(empty):
        first = int(empty[0])
        raise EvaluationError(
            f"evaluation: {len(empty)} of {len(items)} items have no token to score, the first is item {first} "
            f"({items[first][:60]!r}); remove blank items from the evaluation data"
        )
    if not (encoded.x_TD.isfinite().all() and encoded.dense_ID.isfinite().all()):
        raise EvaluationError(
            f"evaluation: the encoder returned non-finite vectors for some of {len(items)} items; "
            "the weights are damaged or the precision overflows"
        )
