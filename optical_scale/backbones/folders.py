"""Model folders of other libraries: what their configuration means for an encoder of this project.

sentence-transformers and PyLate list their modules in ``modules.json``: a Transformer, in the folder itself or in a
subfolder, then pooling, Dense and normalisation. Pooling by the mean and one linear Dense commute, so token vectors
after the head, averaged, are the library's embedding. Checkpoints of ColBERT itself (Khattab and Zaharia 2020, arXiv
2004.12832) have their settings in ``artifact.metadata`` and the linear map among the network's weights.
"""

import json
import logging
import string
from pathlib import Path
from typing import Any, Literal

from transformers import AutoConfig, PretrainedConfig

from optical_scale.backbones.encoder import MASK_RULES, EncoderContract
from optical_scale.backbones.readout import tower_config
from optical_scale.errors import ConfigError

logger = logging.getLogger(__name__)

_COLBERT_FILE = "artifact.metadata"
_COLBERT_MARKERS = {"query": "[unused0]", "doc": "[unused1]"}
_LINEAR = ("torch.nn.modules.linear.Identity", "torch.nn.Identity")


def backbone_folder(folder: Path) -> Path:
    """Where config.json, weights and tokenizer are: ``folder``, or its Transformer module's subfolder."""
    for path, kind in list_modules(folder):
        if kind == "Transformer":
            return path
    return folder


def read_contract(folder: Path) -> EncoderContract | None:
    """The contract of a complete encoder: ``encoder.json``, or what another library says; None for a bare backbone.

    Raises:
        ConfigError: modules that a linear map of token vectors cannot stand for.
    """
    own = EncoderContract.read(folder)
    modules = list_modules(folder)
    if own is not None:
        return own
    if not modules:
        return _colbert(folder)
    dense = [(path, _json(path / "config.json")) for path, kind in modules if kind == "Dense"]
    curved = [values["activation_function"] for _, values in dense if values.get("activation_function") not in _LINEAR]
    if len(dense) > 1 or curved or any(values.get("use_residual") for _, values in dense):
        raise ConfigError(
            f"backbone.pretrained: {folder} has {len(dense)} Dense modules{f' with {curved[0]}' if curved else ''}; "
            "expected at most one linear map, which token vectors can go through. For its Transformer alone, copy that "
            "without modules.json"
        )
    for path, kind in modules:
        if kind == "Pooling" and not _is_mean(_json(path / "config.json")):
            logger.warning("%s pools otherwise than by the mean; here its dense embeddings are means", folder)
    settings = _json(folder / "config_sentence_transformers.json")
    limit = (
        settings.get("document_length")
        or _json(modules[0][0] / "sentence_bert_config.json").get("max_seq_length")
        or _json(modules[0][0] / "tokenizer_config.json").get("model_max_length")
    )
    prompts = {text for text in (settings.get("prompts") or {}).values() if text}
    head = None
    if dense:
        values = dense[0][1]
        head = {"in": values["in_features"], "out": values["out_features"], "bias": values.get("bias", True)}
    # Several prompts, as for queries and passages, leave the choice to the configuration; PyLate's markers do not.
    prefix = prompts.pop() if len(prompts) == 1 else ""
    markers = settings.get("query_prefix") or "", settings.get("document_prefix") or ""
    if any(markers):
        prefix = markers[0]
    if settings.get("do_query_expansion"):
        _warn_of_expansion(folder)
    masked = set(string.punctuation) <= set(settings.get("skiplist_words") or ())
    passages = markers[1] if any(markers) else None
    return EncoderContract("text", int(limit or 0), prefix, head, mask_rule=MASK_RULES[masked], passage_prefix=passages)


def _colbert(folder: Path) -> EncoderContract | None:
    """Of a checkpoint of ColBERT; its markers are tokens of the vocabulary behind the first one."""
    if not is_colbert(folder):
        return None
    settings = _json(folder / _COLBERT_FILE)
    query, document = (f"{settings.get(f'{side}_token_id', token)} " for side, token in _COLBERT_MARKERS.items())
    _warn_of_expansion(folder)
    mask_rule = MASK_RULES[bool(settings.get("mask_punctuation", True))]
    limit = int(settings.get("doc_maxlen") or 0)
    return EncoderContract("text", limit, query, mask_rule=mask_rule, passage_prefix=document)


def is_colbert(folder: Path) -> bool:
    """Whether ColBERT's own code wrote ``folder``."""
    return (folder / _COLBERT_FILE).is_file()


def _warn_of_expansion(folder: Path) -> None:
    logger.warning("%s was trained with queries filled up by mask tokens; here they are as long as they are", folder)


def list_modules(folder: Path) -> list[tuple[Path, str]]:
    """Folder and class name of every module, in order; empty if ``folder`` lists none."""
    listed = _json(folder / "modules.json") or []
    return [(folder / item["path"], item["type"].rpartition(".")[2]) for item in listed]


def network_config(folder: Path, kind: Literal["text", "vision"]) -> PretrainedConfig:
    """What ``folder``'s config.json says of its network; of a model of two towers, of that of ``kind``.

    Raises:
        ConfigError: it is missing, or transformers does not understand it.
    """
    folder = backbone_folder(folder)
    if not (folder / "config.json").is_file():  # of which transformers would say that a server cannot be reached
        raise ConfigError(
            f"backbone.pretrained: {folder} is no model folder of transformers: it has no config.json; name the folder "
            "that holds it and the weights"
        )
    try:
        return tower_config(AutoConfig.from_pretrained(folder, local_files_only=True), kind)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"backbone.pretrained: {folder} is no model folder of transformers: {error}") from error


def _is_mean(pooling: dict[str, Any]) -> bool:
    if "pooling_mode" in pooling:
        return bool(pooling["pooling_mode"] in ("mean", ["mean"]))
    return bool(pooling.get("pooling_mode_mean_tokens")) and not pooling.get("pooling_mode_cls_token")


def _json(path: Path) -> Any:
    """The file's value, an empty dictionary if there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"backbone.pretrained: {path} cannot be read: {error}; copy the folder again") from error
