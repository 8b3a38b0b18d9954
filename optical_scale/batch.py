"""Tensors with meaning. B pairs, R negatives, T tokens (or patches), D width, C H W image channels, rows, columns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Tokenised text, padded on the right.

    Attributes:
        ids_BT: int64 token ids of the tokenizer that belongs to the encoder reading them.
        attention_BT: bool, True for every real token, special ones included; what the backbone attends to.
        mask_BT: bool, True for the tokens that take part in token-level scores and transport (special tokens excluded).
        idf_BT: float32, inverse document frequency of each token, 0 at padding; None where no objective asks for it.
    """

    ids_BT: Tensor
    attention_BT: Tensor
    mask_BT: Tensor
    idf_BT: Tensor | None = None

    def to(self, device: torch.device | str) -> "TokenBatch":
        """Copy to ``device`` without waiting."""
        return self.map(lambda tensor_BT: tensor_BT.to(device, non_blocking=True))

    def map(self, change: Callable[[Tensor], Tensor]) -> "TokenBatch":
        """The same change to every tensor."""
        idf_BT = None if self.idf_BT is None else change(self.idf_BT)
        return TokenBatch(change(self.ids_BT), change(self.attention_BT), change(self.mask_BT), idf_BT)

    @property
    def nbytes(self) -> int:
        """Size of the tensors."""
        idf = 0 if self.idf_BT is None else self.idf_BT.nbytes
        return self.ids_BT.nbytes + self.attention_BT.nbytes + self.mask_BT.nbytes + idf

    def __len__(self) -> int:
        return self.ids_BT.shape[0]


@dataclass(frozen=True, slots=True)
class PatchBatch:
    """Images resized and normalised for a vision tower: ``pixels_BCHW`` float32."""

    pixels_BCHW: Tensor

    def to(self, device: torch.device | str) -> "PatchBatch":
        """Copy to ``device`` without waiting."""
        return PatchBatch(self.pixels_BCHW.to(device, non_blocking=True))

    @property
    def nbytes(self) -> int:
        """Size of the tensor."""
        return self.pixels_BCHW.nbytes

    def __len__(self) -> int:
        return self.pixels_BCHW.shape[0]


@dataclass(frozen=True, slots=True)
class Queries:
    """What is known of pairs whose target is a query and whose source is a passage that answers it.

    Texts are known by a 64-bit digest, so that ranks can tell equal ones without showing them.

    Attributes:
        target_B: int64 digest of each query.
        source_B: int64 digest of each pair's passage.
        negative_R: int64 digest of each negative.
        owner_R: int64 row of the pair that each negative belongs to, ascending.
        scores_B: float32 recorded score of each pair's passage, NaN where there is none.
        scores_R: float32 recorded score of each negative.
    """

    target_B: Tensor
    source_B: Tensor
    negative_R: Tensor
    owner_R: Tensor
    scores_B: Tensor
    scores_R: Tensor

    def to(self, device: torch.device | str) -> "Queries":
        """Copy to ``device`` without waiting."""
        names = self.__dataclass_fields__
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})


@dataclass(frozen=True, slots=True)
class PhraseRegions:
    """F phrases of a batch's captions and the regions that they name; a pair may have any number of them.

    Attributes:
        rows_F: int64, the pair of each phrase.
        tokens_FN: bool, its tokens among those of the source's mask; N reaches as far as the last one.
        patches_FM: float32, the part of each patch that its boxes cover, 0 to 1; somewhere above 0.
    """

    rows_F: Tensor
    tokens_FN: Tensor
    patches_FM: Tensor

    def to(self, device: torch.device | str) -> "PhraseRegions":
        """Copy to ``device`` without waiting."""
        tensors = (self.rows_F, self.tokens_FN, self.patches_FM)
        return PhraseRegions(*(tensor.to(device, non_blocking=True) for tensor in tensors))

    @property
    def nbytes(self) -> int:
        """Size of the tensors."""
        return self.rows_F.nbytes + self.tokens_FN.nbytes + self.patches_FM.nbytes


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Aligned inputs: row b of ``source`` (English, for the teacher) means row b of ``target`` (for the student).

    Attributes:
        source: English text in the source tokenizer's ids; behind row B - 1 come the R negatives, if there are any.
            Images where the teacher reads these.
        target: text in the target tokenizer's ids, or images.
        languages: B BCP-47 tags of the target side.
        keys: B sample keys, for error messages and evaluation; none when the one row is a stand-in that counts nothing.
        skipped: why samples that belonged here were left out, one word each.
        queries: what else is known of texts; None for images.
        regions: phrases with boxes, where the objective learns from them and the batch has any.
    """

    source: TokenBatch | PatchBatch
    target: TokenBatch | PatchBatch
    languages: tuple[str, ...]
    keys: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    queries: Queries | None = None
    regions: PhraseRegions | None = None

    @property
    def negatives(self) -> int:
        """R."""
        return 0 if self.queries is None else len(self.queries.owner_R)

    def to(self, device: torch.device | str) -> "PairBatch":
        """Copy both sides, and what is known of queries and phrases, to ``device`` without waiting."""
        queries = None if self.queries is None else self.queries.to(device)
        regions = None if self.regions is None else self.regions.to(device)
        source, target = self.source.to(device), self.target.to(device)
        return replace(self, source=source, target=target, queries=queries, regions=regions)

    def without(self, skipped: Sequence[str]) -> "PairBatch":
        """The same pairs, with the reasons why others are missing."""
        return replace(self, skipped=(*self.skipped, *skipped))

    @property
    def nbytes(self) -> int:
        """Size of the tensors of both sides and of the phrases."""
        return self.source.nbytes + self.target.nbytes + (self.regions.nbytes if self.regions else 0)

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class TokenStates:
    """What an encoder says about each token.

    Attributes:
        x_BTD: token vectors, not normalised.
        mask_BT: bool, tokens that take part in token-level scores and transport.
        attention_BT: bool; the dense embedding is the mean over these: all real tokens, as in sentence-transformers, or
            the one into which the network was trained to sum all up.
        idf_BT: float32, inverse document frequency of each token; None for patches, and where no objective asks for it.
        layers: vectors as ``x_BTD`` by number of the inner layer, of those that an objective asks for.
    """

    x_BTD: Tensor
    mask_BT: Tensor
    attention_BT: Tensor
    idf_BT: Tensor | None = None
    layers: Mapping[int, Tensor] = field(default_factory=dict)

    def normalized(self) -> Tensor:
        """Unit-length token vectors in float32, (B, T, D)."""
        return torch.nn.functional.normalize(self.x_BTD.float(), dim=-1)

    def pooled(self, share_BT: Tensor | None = None) -> Tensor:
        """Unit-length mean of all real tokens in float32, (B, D), or one with weights ``share_BT`` that sum to one."""
        weight_BT1 = (self.attention_BT if share_BT is None else share_BT).unsqueeze(-1).float()
        mean_BD = (self.x_BTD.float() * weight_BT1).sum(1) / weight_BT1.sum(1).clamp_min(1.0)
        return torch.nn.functional.normalize(mean_BD, dim=-1)

    def detach(self) -> "TokenStates":
        """The same values outside the autograd graph."""
        return self.map(Tensor.detach)

    def map(self, change: Callable[[Tensor], Tensor]) -> "TokenStates":
        """The same change to the vectors of the output and of every layer."""
        layers = {number: change(x_BTD) for number, x_BTD in self.layers.items()}
        return replace(self, x_BTD=change(self.x_BTD), layers=layers)

    def at_layer(self, number: int | None) -> "TokenStates":
        """The vectors of an inner layer in the place of the output's; None leaves the output."""
        return self if number is None else replace(self, x_BTD=self.layers[number], layers={})

    def first(self, rows: int) -> "TokenStates":
        """The first ``rows`` rows."""
        return self.part(slice(rows))

    def part(self, rows: slice) -> "TokenStates":
        """Some of the rows."""
        idf_BT = None if self.idf_BT is None else self.idf_BT[rows]
        cut = replace(self, mask_BT=self.mask_BT[rows], attention_BT=self.attention_BT[rows], idf_BT=idf_BT)
        return cut.map(lambda x_BTD: x_BTD[rows])

    def __len__(self) -> int:
        return self.x_BTD.shape[0]
