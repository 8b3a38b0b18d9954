"""The vectors of a document collection on disk: made by all ranks, read in place by mapping files into memory.

A folder holds for every rank that wrote it ``tokens.R.bin`` (half-precision rows of unit vectors), ``dense.R.bin``
(float32, one pooled vector per passage), ``lengths.R.npy`` (tokens of each passage) and ``passages.R.npy`` (passages of
each document); ``manifest.json`` is written last. Ranks need one file system that all of them see.
"""

import json
import shutil
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from optical_scale.errors import EvaluationError
from optical_scale.evaluation.encoding import EncodedSet, EncodeText, encode, share_of
from optical_scale.evaluation.passages import split_passages
from optical_scale.runtime.collectives import agree_on_errors, barrier, broadcast_object, gather_integers
from optical_scale.runtime.files import sync_folder, write_json
from optical_scale.runtime.log import progress
from optical_scale.runtime.world import World

FORMAT_VERSION = 2
Precision = Literal["float16", "bfloat16"]
_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
_DOCUMENTS_PER_ROUND = 512


@dataclass(frozen=True, slots=True)
class Block:
    """Documents that fit in memory.

    Attributes:
        passages: vectors of their P passages; token vectors in the precision of the disk.
        document_P: position in the collection of each passage's document; passages of one document stand together.
    """

    passages: EncodedSet
    document_P: Tensor


class TokenMatrices:
    """An encoded collection.

    Args:
        folder: written by :func:`write_token_matrices`.

    Raises:
        EvaluationError: there is no finished folder, or its files do not have the sizes that its manifest records.
    """

    def __init__(self, folder: Path) -> None:
        try:
            values: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            self.source: str = values["source"]
            self.documents: int = values["documents"]
            self.passages: int = values["passages"]
            self.width: int = values["width"]
            precision, version = values["precision"], values["format_version"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EvaluationError(
                f"{folder}: no finished token matrices ({error!r:.100}); delete the folder, it is made anew"
            ) from None
        if version != FORMAT_VERSION:
            raise EvaluationError(f"{folder}: format version {version}; expected {FORMAT_VERSION}; delete the folder")
        self._parts = [_Part(folder, rank, _DTYPES[precision], self.width) for rank in range(values["parts"])]
        if sum(len(part.passages_K) for part in self._parts) != self.documents:
            raise EvaluationError(f"{folder}: the parts do not hold {self.documents} documents; delete the folder")

    def blocks(self, tokens: int, world: World, device: torch.device | str = "cpu") -> Iterator[Block]:
        """This rank's share of the collection, in blocks of at most ``tokens`` tokens and at least one document."""
        number = first = 0
        for part in self._parts:
            for start, stop in part.cuts(tokens):
                if number % world.size == world.rank:
                    yield part.block(start, stop, first, device)
                number += 1
            first += len(part.passages_K)

    def pick(self, positions: Sequence[int], device: torch.device | str = "cpu") -> Block:
        """The documents at ``positions``, at least one, in that order and in memory together; for reranking."""
        bounds = np.cumsum([0, *(len(part.passages_K) for part in self._parts)])
        blocks = []
        for position in positions:
            at = int(np.searchsorted(bounds, position, side="right")) - 1
            local = position - int(bounds[at])
            blocks.append(self._parts[at].block(local, local + 1, int(bounds[at]), device))
        lengths_P = torch.cat([block.passages.lengths for block in blocks])
        passages = EncodedSet(
            torch.cat([block.passages.x_TD for block in blocks]),
            torch.nn.functional.pad(lengths_P.cumsum(0), (1, 0)),
            torch.cat([block.passages.dense_ID for block in blocks]),
        )
        return Block(passages, torch.cat([block.document_P for block in blocks]))


class _Part:
    """The files of one writing rank."""

    def __init__(self, folder: Path, rank: int, dtype: torch.dtype, width: int) -> None:
        self._dtype = dtype
        self.passages_K: NDArray[np.int64] = np.load(folder / f"passages.{rank}.npy")
        self._lengths_P: NDArray[np.int64] = np.load(folder / f"lengths.{rank}.npy")
        self._token_P = np.concatenate([[0], np.cumsum(self._lengths_P)])
        self._passage_K = np.concatenate([[0], np.cumsum(self.passages_K)])
        self._tokens_TD = _mapped(folder / f"tokens.{rank}.bin", np.dtype(np.int16), int(self._token_P[-1]), width)
        self._dense_PD = _mapped(folder / f"dense.{rank}.bin", np.dtype(np.float32), len(self._lengths_P), width)

    def cuts(self, tokens: int) -> Iterator[tuple[int, int]]:
        """Borders of blocks of documents with at most ``tokens`` tokens each."""
        ends_K = self._token_P[self._passage_K]
        start = 0
        while start < len(self.passages_K):
            stop = max(start + 1, int(np.searchsorted(ends_K, ends_K[start] + tokens, side="right")) - 1)
            yield start, stop
            start = stop

    def block(self, start: int, stop: int, offset: int, device: torch.device | str) -> Block:
        """Documents ``start`` to ``stop``, the first document of the part having the position ``offset``."""
        first, last = (int(self._passage_K[at]) for at in (start, stop))
        rows = torch.from_numpy(self._tokens_TD[self._token_P[first] : self._token_P[last]]).view(self._dtype)
        document_P = np.repeat(np.arange(start, stop) + offset, self.passages_K[start:stop])
        return Block(
            EncodedSet(
                rows.to(device),
                torch.from_numpy(self._token_P[first : last + 1] - self._token_P[first]).to(device),
                torch.from_numpy(self._dense_PD[first:last]).to(device),
            ),
            torch.from_numpy(document_P).to(device),
        )


def _mapped(path: Path, dtype: np.dtype[Any], rows: int, width: int) -> NDArray[Any]:
    """The rows of a file, in place.

    Raises:
        EvaluationError: it has another size.
    """
    size = path.stat().st_size
    if size != rows * width * dtype.itemsize:
        raise EvaluationError(f"{path}: {size:,} bytes for {rows:,} rows of width {width}; delete the folder")
    # Mode "c" gives memory that torch may regard as writable; the file itself never changes. Nothing cannot be mapped.
    return np.memmap(path, dtype, "c", shape=(rows, width)) if rows else np.empty((0, width), dtype)


def write_token_matrices(
    folder: Path,
    texts: Sequence[str],
    encode_texts: EncodeText,
    *,
    source: str,
    batch_size: int,
    world: World,
    precision: Precision = "float16",
    passage_words: int | None = None,
) -> TokenMatrices:
    """Encode a collection over all ranks and write it; the folder appears whole or not at all.

    Every rank takes a contiguous share and makes the same number of forward passes, which sharded encoders need.
    Memory: one round of documents; vectors go to disk at once.

    Args:
        folder: to create, on a file system that all ranks see.
        texts: all documents by position; only those of the share are read.
        encode_texts: the encoder.
        source: what the vectors are made of, for the caller to compare later: hash of encoder and collection.
        batch_size: passages per forward pass.
        world: all its ranks must call.
        precision: of token vectors on disk; errors of about 5e-4 and 4e-3 of a unit vector's components.
        passage_words: longer documents are cut into passages of so many words; None: the encoder cuts what is too long.

    Raises:
        EvaluationError: ``folder`` exists, there is no document, or a vector is unusable.
    """
    if not texts:
        raise EvaluationError("evaluation: the collection to encode is empty; check the data")
    if folder.exists():
        raise EvaluationError(f"{folder} exists already; delete it or choose another")
    temporary = Path(broadcast_object(_temporary(folder) if world.is_main else None))
    try:
        width = _write_part(temporary, texts, encode_texts, batch_size, world, _DTYPES[precision], passage_words)
    except BaseException:
        if world.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    barrier()
    if world.is_main:
        passages = sum(len(np.load(temporary / f"lengths.{rank}.npy", mmap_mode="r")) for rank in range(world.size))
        write_json(
            temporary / "manifest.json",
            {
                "format_version": FORMAT_VERSION,
                "source": source,
                "documents": len(texts),
                "passages": passages,
                "width": width,
                "precision": precision,
                "parts": world.size,
            },
        )
        temporary.replace(folder)
        sync_folder(folder.parent)
    barrier()
    return TokenMatrices(folder)


def _device(world: World) -> str:
    """Where small tensors must lie for an exchange: NCCL takes only those of the GPU."""
    return "cuda" if world.size > 1 and dist.get_backend() == "nccl" else "cpu"


def _temporary(folder: Path) -> str:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent)


def _write_part(
    folder: Path,
    texts: Sequence[str],
    encode_texts: EncodeText,
    batch_size: int,
    world: World,
    dtype: torch.dtype,
    passage_words: int | None,
) -> int:
    """Write this rank's files; returns the width of the vectors."""
    share = share_of(len(texts), world)
    # One growing block each: small arrays kept between the large ones of every round would scatter over the heap.
    counts, lengths = array("q"), array("q")
    width = 0
    with (
        (folder / f"tokens.{world.rank}.bin").open("wb") as file,
        (folder / f"dense.{world.rank}.bin").open("wb") as dense,
    ):
        for start in progress(range(share.start, share.stop, _DOCUMENTS_PER_ROUND), "encode", None, unit="round"):
            stop = min(start + _DOCUMENTS_PER_ROUND, share.stop)
            pieces = [split_passages(texts[at], passage_words) for at in range(start, min(stop, len(texts)))]
            passages = [piece for document in pieces for piece in document]
            # Ranks agree on the number of forward passes; the repetitions at the end are not written.
            (most,) = (max(of_ranks) for of_ranks in gather_integers([len(passages)], _device(world)))
            filler = passages[-1] if passages else texts[-1]
            filled = [*passages, *[filler] * (most - len(passages))]
            with agree_on_errors("encoding the collection", _device(world)):
                kept = encode(filled, encode_texts, batch_size=batch_size, world=World()).span(0, len(passages))
                width = kept.x_TD.shape[1]
                kept.x_TD.to(dtype).contiguous().cpu().view(torch.int16).numpy().tofile(file)
                kept.dense_ID.float().cpu().numpy().tofile(dense)
            counts.extend(len(document) for document in pieces)
            lengths.extend(kept.lengths.tolist())
    np.save(folder / f"passages.{world.rank}.npy", np.array(counts, np.int64))
    np.save(folder / f"lengths.{world.rank}.npy", np.array(lengths, np.int64))
    return width
