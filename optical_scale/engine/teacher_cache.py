"""Teacher token states on disk: encoded once, then read at every step of every run that has the same teacher.

A text is known by its token ids, so the cache does not care where the text came from, and one encoded English sentence
serves all languages that are paired with it. The folder::

    manifest.json       what the states were made of and how exact they are; written last
    index.npy           rows high, low (hash of the ids), start, tokens, part; a column per text, ascending by hash
    states-00000.bin    token vectors of the texts that rank 0 encoded, one text after the other: all of its output,
                        then all of each inner layer that is kept
    scales-00000.bin    int8 only: the factor of each vector

Readers map the files into memory, so that all processes of a machine share what its page cache holds.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optical_scale.backbones.encoder import token_states
from optical_scale.backbones.readout import TEXT, Readout
from optical_scale.batch import PatchBatch, TokenBatch, TokenStates
from optical_scale.errors import EngineError
from optical_scale.runtime.files import write_json

Precision = Literal["float32", "bfloat16", "int8"]
MANIFEST = "manifest.json"
_INDEX = "index.npy"
_FORMAT = 2
_READABLE = (1, 2)  # 1 knew no inner layers and is otherwise the same
_STORED = {"float32": np.float32, "bfloat16": np.uint16, "int8": np.int8}  # numpy has no bfloat16; its bits are kept
_COLUMNS = ("high", "low", "start", "tokens", "part")
_ROW = np.dtype([(name, "<u8") for name in _COLUMNS])


class CacheWriter:
    """Writes the part of one rank.

    Args:
        folder: of the cache, under its temporary name.
        rank: of this process; names its files.
        precision: how vectors are stored.
    """

    def __init__(self, folder: Path, rank: int, precision: Precision) -> None:
        self.folder, self.precision = folder, precision
        self._part, self._rows, self._start = rank, [np.zeros(0, _ROW)], 0
        self._known: set[bytes] = set()
        self._states = (folder / f"states-{rank:05d}.bin").open("wb")
        self._scales = (folder / f"scales-{rank:05d}.bin").open("wb") if precision == "int8" else None

    def knows(self, ids_T: NDArray[np.int32]) -> bool:
        """Whether these ids were announced before; they are from now on."""
        digest = _digest(ids_T)
        known = digest in self._known
        self._known.add(digest)
        return known

    def add(self, ids_T: NDArray[np.int32], x_VTD: Tensor) -> None:
        """Store the vectors of one text, (1 + inner layers, tokens, width)."""
        stored, scale_VT1 = _pack(x_VTD, self.precision)
        self._states.write(stored.tobytes())
        if self._scales is not None:
            self._scales.write(scale_VT1.tobytes())
        high, low = _key(ids_T)
        self._rows.append(np.array([(high, low, self._start, len(ids_T), self._part)], _ROW))
        self._start += len(ids_T)

    def close(self) -> None:
        """Flush this rank's files; :func:`finish_cache` joins the ranks' indices."""
        self._states.close()
        if self._scales is not None:
            self._scales.close()
        np.save(self.folder / f"index-{self._part:05d}.npy", np.concatenate(self._rows))


def finish_cache(
    folder: Path,
    fingerprint: Mapping[str, str],
    precision: Precision,
    width: int,
    errors: Any,
    layers: Sequence[int] = (),
) -> None:
    """Join the indices of all ranks and write the manifest; on one rank, after all have closed.

    Args:
        folder: of the cache, under its temporary name.
        fingerprint: what the states depend on; readers must expect the same.
        precision: how vectors are stored.
        width: of the vectors.
        errors: measured by storing, for people to read.
        layers: numbers of the inner layers, in the order of a text's vectors.
    """
    parts = sorted(folder.glob("index-*.npy"))
    rows = np.concatenate([np.load(path) for path in parts])
    # Ranks may have met the same text; whichever comes first serves all.
    _, first = np.unique(rows[["high", "low"]], return_index=True)
    rows = rows[first]
    np.save(folder / _INDEX, np.stack([rows[name] for name in _COLUMNS]))
    for path in parts:
        path.unlink()
    described = {"precision": precision, "width": width, "layers": list(layers)}
    described |= {"texts": len(rows), "tokens": int(rows["tokens"].sum())}
    write_json(folder / MANIFEST, {"format": _FORMAT, **described, "errors": errors, "fingerprint": dict(fingerprint)})


class CachedTeacher:
    """Reads what :class:`CacheWriter` wrote, in the place of a :class:`~optical_scale.engine.teacher.TeacherEngine`.

    Args:
        folder: of the cache.
        fingerprint: what this run's teacher is.
        device: where token states are wanted.
        readout: of the teacher's network.
        layers: inner layers that are wanted beside the output.

    Attributes:
        width: of the token vectors.
        layers: as given.

    Raises:
        EngineError: no finished cache there, one of another teacher, tokenizer or limit, or one without these layers.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: Mapping[str, str],
        device: torch.device,
        readout: Readout = TEXT,
        layers: Sequence[int] = (),
    ) -> None:
        self.folder, self.device, self.readout = folder, device, readout
        manifest = _read_manifest(folder)
        changed = [
            f"{name} (cache {manifest['fingerprint'].get(name)}, run {value})"
            for name, value in fingerprint.items()
            if manifest["fingerprint"].get(name) != value
        ]
        if changed:
            raise EngineError(
                f"teacher.cache: {folder} was written by another teacher: {'; '.join(changed)} differ (`tokenizer` is "
                "its files, max_tokens and prefixes). Delete it and run `optical-scale cache` anew, or give another "
                "folder"
            )
        kept: list[int] = manifest.get("layers", [])
        if missing := sorted(set(layers) - set(kept)):
            holds = f"the output and the inner layers {kept}" if kept else "the output only"
            more = f" and teacher.cache.layers='{kept}', which other runs may read" if kept else ""
            raise EngineError(
                f"teacher.cache: {folder} holds {holds}, and the objective compares layer {missing[0]}; delete it and "
                f"run `optical-scale cache` anew with this configuration{more}, or give another folder"
            )
        self.layers = tuple(layers)
        self._vectors = 1 + len(kept)
        self._places = [0, *(1 + kept.index(number) for number in layers)]
        self._precision: Precision = manifest["precision"]
        self.width = int(manifest["width"])
        self._high, self._low, self._start, self._tokens, self._part = np.load(folder / _INDEX, mmap_mode="r")
        self._files: dict[int, tuple[NDArray[Any], NDArray[np.float32] | None]] = {}

    def resident_parameters(self) -> int:
        """None: the network itself is not loaded."""
        return 0

    def encode(self, batch: TokenBatch | PatchBatch) -> TokenStates:
        """Token states of a batch, float32, from disk; ranks need not call together.

        Raises:
            EngineError: a text is not in the cache.
        """
        assert isinstance(batch, TokenBatch), "teachers read text"
        B, T = batch.ids_BT.shape
        x_VBTD = torch.zeros(len(self._places), B, T, self.width)
        for row, (ids_T, there_T) in enumerate(zip(batch.ids_BT.cpu(), batch.attention_BT.cpu(), strict=True)):
            self._fill(ids_T[there_T].numpy().astype(np.int32), x_VBTD[:, row])
        found = tuple(x_VBTD.to(self.device, non_blocking=True))
        return token_states(found, batch.to(self.device), self.readout, self.layers)

    def _fill(self, ids_T: NDArray[np.int32], x_VTD: Tensor) -> None:
        high, low = _key(ids_T)
        at = int(np.searchsorted(self._high, np.uint64(high)))
        while at < len(self._high) and int(self._high[at]) == high and int(self._low[at]) != low:
            at += 1
        if at == len(self._high) or int(self._high[at]) != high:
            raise EngineError(
                f"teacher.cache: {self.folder} has no states for a text of {len(ids_T)} tokens (ids "
                f"{ids_T[:8].tolist()} …): it was written for other data. Delete it and run `optical-scale cache` anew"
            )
        states_ND, scales_N = self._open(int(self._part[at]))
        first, tokens = int(self._start[at]) * self._vectors, int(self._tokens[at])
        for x_TD, place in zip(x_VTD, self._places, strict=True):
            rows = slice(first + place * tokens, first + (place + 1) * tokens)
            scale_T = None if scales_N is None else scales_N[rows]
            x_TD[: len(ids_T)] = _unpack(states_ND[rows], scale_T, self._precision)

    def _open(self, part: int) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
        if part not in self._files:
            flat = np.memmap(self.folder / f"states-{part:05d}.bin", _STORED[self._precision], "r")
            scales = None
            if self._precision == "int8":
                scales = np.memmap(self.folder / f"scales-{part:05d}.bin", np.float32, "r")
            self._files[part] = flat.reshape(-1, self.width), scales
        return self._files[part]


def stored_and_read(x_TD: Tensor, precision: Precision) -> Tensor:
    """What becomes of vectors on their way through a cache, float32."""
    stored, scale_T1 = _pack(x_TD, precision)
    return _unpack(stored, scale_T1[:, 0] if precision == "int8" else None, precision)


def _pack(x: Tensor, precision: Precision) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Vectors (..., D) as they are stored, and their factors (..., 1)."""
    x = x.detach().float().cpu().contiguous()
    scale = x.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / 127.0
    match precision:
        case "float32":
            return x.numpy(), scale.numpy()
        case "bfloat16":
            return x.bfloat16().view(torch.int16).numpy().view(np.uint16), scale.numpy()
        case "int8":
            return (x / scale).round().to(torch.int8).numpy(), scale.numpy()


def _unpack(stored: NDArray[Any], scale_T: NDArray[np.float32] | None, precision: Precision) -> Tensor:
    # Copied, because torch wants memory that it may write to.
    if precision == "bfloat16":
        return torch.from_numpy(np.array(stored).view(np.int16)).view(torch.bfloat16).float()
    x_TD = torch.from_numpy(np.array(stored)).float()
    return x_TD if scale_T is None else x_TD * torch.from_numpy(np.array(scale_T)).unsqueeze(1)


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))
    except FileNotFoundError as error:
        raise EngineError(
            f"teacher.cache: {folder} holds no finished cache ({MANIFEST} is missing); write it by `optical-scale "
            "cache` with this configuration, or set `teacher.cache: null` to encode at every step"
        ) from error
    except ValueError as error:
        raise EngineError(f"teacher.cache: {folder / MANIFEST} is damaged: {error}; write the cache anew") from error
    if manifest.get("format") not in _READABLE:
        raise EngineError(
            f"teacher.cache: {folder} has format {manifest.get('format')}, expected {_FORMAT}; write it anew"
        )
    return manifest


def _digest(ids_T: NDArray[np.int32]) -> bytes:
    return hashlib.blake2b(ids_T.astype("<i4").tobytes(), digest_size=16).digest()


def _key(ids_T: NDArray[np.int32]) -> tuple[int, int]:
    digest = _digest(ids_T)
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
