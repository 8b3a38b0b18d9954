"""Two towers in one folder: a trained image encoder and the text encoder whose space it learned.

``vision/`` and ``text/`` are complete folders of their own. The whole is a model of sentence-transformers 6, whose
Router sends images and texts to their tower: mean of the token vectors, or the vector that the tower has for all of an
input, head, unit length. transformers' class for two towers, VisionTextDualEncoderModel, pools by the first token
through a layer that was never trained here, so it could not give the trained embeddings.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from optical_scale.backbones.encoder import CONTRACT_FILE, EncoderContract
from optical_scale.backbones.folders import list_modules, read_contract
from optical_scale.backbones.readout import TWO_TOWERS
from optical_scale.errors import ExportError
from optical_scale.export.sentence_transformers import DENSE, prompts, write_pooling
from optical_scale.runtime.files import write_json

VISION, TEXT = "vision", "text"
_TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
_POOLING = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
_DENSE = "sentence_transformers.base.modules.dense.Dense"
_NORMALIZE = "sentence_transformers.base.modules.normalize.Normalize"
_ROUTER = "sentence_transformers.base.modules.router.Router"


def add_text_tower(folder: Path, text: Path, told: EncoderContract) -> EncoderContract:
    """Copy the text encoder ``text`` beside ``folder/vision`` and join both.

    Args:
        folder: holds the exported image encoder in ``vision``.
        text: folder of transformers or sentence-transformers, which stays as it is.
        told: limit and prefix for a folder that does not say them itself.

    Returns:
        The contract of the text tower.

    Raises:
        ExportError: ``text`` holds no such encoder, or its vectors are of another width.
        ConfigError: modules that a linear map of token vectors cannot stand for.
    """
    modules = list_modules(text)
    kinds = [kind for _, kind in modules]
    if not (text / "config.json").is_file() or (modules and (kinds[0] != "Transformer" or "Pooling" not in kinds)):
        raise ExportError(
            f"text tower: {text} holds {', '.join(kinds) or 'no config.json'}; expected a folder of transformers or "
            "sentence-transformers, such as `optical-scale export` writes without layout=pylate"
        )
    if not modules and _config(text)["model_type"] in TWO_TOWERS:
        raise ExportError(
            f"text tower: {text} is a model of two towers, of which sentence-transformers cannot take the text tower; "
            "save that by itself (its `text_model` and `text_projection`), or export without layout=vision_text"
        )
    contract = read_contract(text) or told
    if contract.kind != "text":
        raise ExportError(f"text tower: {text} holds a {contract.kind} encoder")
    vision = EncoderContract.read(folder / VISION)
    assert vision is not None, "the export has written encoder.json"
    widths = {VISION: _width(folder / VISION, vision), TEXT: _width(text, contract)}
    if widths[VISION] != widths[TEXT]:
        raise ExportError(
            f"text tower: vectors of {text} have width {widths[TEXT]}, those of images {widths[VISION]}; both must "
            "have learned from the same teacher"
        )
    shutil.copytree(text, folder / TEXT)
    if not (folder / TEXT / CONTRACT_FILE).is_file():
        replace(contract, max_tokens=contract.max_tokens or told.max_tokens).write(folder / TEXT)
    dense = [str(path.relative_to(text)) for path, kind in modules if kind == "Dense"]
    _write_router(folder, contract, vision, dense)
    return contract


def _write_router(folder: Path, text: EncoderContract, vision: EncoderContract, dense: list[str]) -> None:
    write_json(folder / "modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": _ROUTER},
        {"idx": 1, "name": "1", "path": "1_Normalize", "type": _NORMALIZE},
    ])  # fmt: skip
    write_json(folder / "config_sentence_transformers.json", {**prompts(text), "similarity_fn_name": "cosine"})
    mean = vision.pooled == "mean"
    output = "last_hidden_state" if mean else "pooler_output"
    write_json(
        folder / VISION / "sentence_bert_config.json",
        {
            "modality_config": {"image": {"method": "forward", "method_output_name": output}},
            "module_output_name": "token_embeddings" if mean else "sentence_embedding",
        },
    )
    write_json(folder / TEXT / "sentence_bert_config.json", {"max_seq_length": text.max_tokens, "do_lower_case": False})
    routes = {
        TEXT: [TEXT, f"{TEXT}_Pooling", *(f"{TEXT}/{path}" for path in dense)],
        "image": [VISION, *[f"{VISION}_Pooling"] * mean, *[f"{VISION}/{DENSE}"] * (vision.head is not None)],
    }
    for tower, pooled in ((TEXT, text.pooled), (VISION, vision.pooled)):
        if f"{tower}_Pooling" in [*routes[TEXT], *routes["image"]]:
            write_pooling(folder / f"{tower}_Pooling", int(_config(folder / tower)["hidden_size"]), pooled)
    types = {TEXT: _TRANSFORMER, VISION: _TRANSFORMER, f"{TEXT}_Pooling": _POOLING, f"{VISION}_Pooling": _POOLING}
    write_json(
        folder / "router_config.json",
        {
            "types": {path: types.get(path, _DENSE) for route in routes.values() for path in route},
            "structure": routes,
            "parameters": {"default_route": TEXT, "allow_empty_key": True},
        },
    )


def _width(folder: Path, contract: EncoderContract) -> int:
    return int(contract.head["out"] if contract.head else _config(folder)["hidden_size"])


def _config(folder: Path) -> Any:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))
