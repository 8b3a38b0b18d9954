"""A vocabulary cut down to what given texts need, without changing how they are read.

Unigram and WordPiece tokenizers choose among the pieces of the vocabulary: unigram the most probable segmentation,
WordPiece the longest piece at each place. Without the pieces that were never chosen the same choice wins. Merges of
byte-pair encodings build on each other, so those vocabularies are left alone.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from optical_scale.backbones.encoder import EncoderContract
from optical_scale.errors import ExportError
from optical_scale.export.verify import Reference
from optical_scale.runtime.files import write_json

Texts = Callable[[], Iterable[str]]
"""Opens the texts; called once."""

_BATCH = 1024


def trim_vocabulary(folder: Path, contract: EncoderContract, texts: Texts, reference: Path) -> Tensor:
    """Cut the tokenizer and the configuration in ``folder``, in place.

    Kept are the pieces that occur in the texts and in the checkpoint's reference, special and added tokens, and the
    single characters and bytes of which other texts can be built.

    Args:
        folder: holds config.json and the tokenizer.
        contract: of a text encoder.
        texts: what the exported model shall read as before.
        reference: inputs of the checkpoint's proof.

    Returns:
        The new id of each old one, -1 if its piece is gone, int64 (V,).

    Raises:
        ExportError: an image encoder, or a tokenizer of another kind.
    """
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    kind = values.get("model", {}).get("type")
    if kind not in ("Unigram", "WordPiece"):
        raise ExportError(
            f"the vocabulary cannot be trimmed: found {kind or 'no tokenizer.json'}, expected Unigram or WordPiece"
        )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    size = max(int(config["vocab_size"]), 1 + max(_pieces(values).values()))
    kept_V = torch.zeros(size, dtype=torch.bool)
    kept_V[_occurring(folder, contract, texts)] = True
    kept_V[Reference.read(reference).tensors["ids_BT"].flatten()] = True
    kept_V[_always(values)] = True
    # XLM-R counts positions from the padding id, which must not move.
    kept_V[: int(config.get("pad_token_id") or 0) + 1] = True
    kept_V[int(config["vocab_size"]) :] = False
    new_ids_V = torch.where(kept_V, kept_V.cumsum(0) - 1, -1)[: int(config["vocab_size"])]
    write_json(path, _cut(values, new_ids_V.tolist()))
    _rewrite_configs(folder, config, new_ids_V.tolist(), int(kept_V.sum()))
    return new_ids_V


def _occurring(folder: Path, contract: EncoderContract, texts: Texts) -> list[int]:
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    found: set[int] = set(tokenizer([contract.passage_prefix or ""])["input_ids"][0])
    rest: Iterator[str] = iter(texts())
    while rows := list(islice(rest, _BATCH)):
        for ids in tokenizer([contract.prefix + row for row in rows])["input_ids"]:
            found.update(ids)
    return sorted(found)


def _always(values: dict[str, Any]) -> list[int]:
    """Added tokens, single characters and bytes, and the piece whose score sets the price of unknown characters."""
    pieces = _pieces(values)
    kept = {item["id"] for item in values["added_tokens"]}
    prefix = values["model"].get("continuing_subword_prefix", "")
    kept |= {index for piece, index in pieces.items() if len(piece.removeprefix(prefix)) == 1 or _is_byte(piece)}
    if values["model"]["type"] == "Unigram":
        scores = [score for _, score in values["model"]["vocab"]]
        kept |= {scores.index(min(scores)), values["model"]["unk_id"] or 0}
    else:
        kept.add(pieces[values["model"]["unk_token"]])
    return sorted(kept)


def _is_byte(piece: str) -> bool:
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


def _pieces(values: dict[str, Any]) -> dict[str, int]:
    vocab = values["model"]["vocab"]
    if isinstance(vocab, dict):
        return dict(vocab)
    return {piece: index for index, (piece, _) in enumerate(vocab)}


def _cut(values: dict[str, Any], new_ids: list[int]) -> dict[str, Any]:
    """``tokenizer.json`` with the kept pieces under their new ids."""
    model = values["model"]
    if model["type"] == "Unigram":
        rows = [row for index, row in enumerate(model["vocab"]) if index < len(new_ids) and new_ids[index] >= 0]
        unknown = model["unk_id"]
        model = model | {"vocab": rows, "unk_id": None if unknown is None else new_ids[unknown]}
    else:
        model = model | {
            "vocab": {piece: new_ids[index] for piece, index in model["vocab"].items() if new_ids[index] >= 0}
        }
    added = [item | {"id": new_ids[item["id"]]} for item in values["added_tokens"] if item["id"] < len(new_ids)]
    return values | {
        "model": model,
        "added_tokens": added,
        "post_processor": _renumbered(values.get("post_processor"), new_ids),
    }


def _renumbered(processor: Any, new_ids: list[int]) -> Any:
    """A post-processor whose special tokens have their new ids."""
    if isinstance(processor, list):
        return [_renumbered(item, new_ids) for item in processor]
    if not isinstance(processor, dict):
        return processor
    changed = {key: _renumbered(value, new_ids) for key, value in processor.items()}
    if isinstance(changed.get("ids"), list):
        changed["ids"] = [new_ids[index] for index in changed["ids"]]
    for role in ("sep", "cls"):
        if isinstance(changed.get(role), list):
            piece, index = changed[role]
            changed[role] = [piece, new_ids[index]]
    return changed


def _rewrite_configs(folder: Path, config: dict[str, Any], new_ids: list[int], size: int) -> None:
    ids = {
        key: new_ids[value]
        for key, value in config.items()
        if key.endswith("_token_id") and isinstance(value, int) and 0 <= value < len(new_ids)
    }
    write_json(folder / "config.json", config | ids | {"vocab_size": size})
    path = folder / "tokenizer_config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(values.get("added_tokens_decoder"), dict):
        values["added_tokens_decoder"] = {
            str(new_ids[int(index)]): item
            for index, item in values["added_tokens_decoder"].items()
            if int(index) < len(new_ids)
        }
    write_json(path, values)
