"""The files that make a Hugging Face folder a sentence-transformers model as well.

The model is mean pooling over the attention mask (of CLIP's texts the last token), the head as a Dense module, unit
length. A head without bias or with one commutes with the mean, so the result equals the mean of the token vectors after
the head.
The formats are those that sentence-transformers has read since release 2 and still reads in release 6.
"""

from pathlib import Path
from typing import Any

from optical_scale.backbones.encoder import EncoderContract
from optical_scale.backbones.readout import Pooled
from optical_scale.runtime.files import write_json

DENSE = "2_Dense"


def write_layout(folder: Path, contract: EncoderContract, width: int) -> Path:
    """Write the configuration of all modules.

    Args:
        folder: holds the backbone already.
        contract: of a text encoder.
        width: of the backbone's token vectors.

    Returns:
        Where the head belongs.
    """
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    if contract.head is not None:
        modules.append((DENSE, "Dense"))
    if contract.normalize:
        modules.append((f"{len(modules)}_Normalize", "Normalize"))
    write_modules(folder, [(path, f"sentence_transformers.models.{kind}") for path, kind in modules], contract)
    write_pooling(folder / "1_Pooling", width, contract.pooled)
    write_json(folder / "config_sentence_transformers.json", {**prompts(contract), "similarity_fn_name": "cosine"})
    return folder / DENSE


def write_pooling(folder: Path, width: int, pooled: Pooled) -> None:
    """Write the configuration of a mean over ``width`` wide token vectors, or of another rule."""
    write_json(
        folder / "config.json",
        {
            "word_embedding_dimension": width,
            "pooling_mode_cls_token": pooled == "first",
            "pooling_mode_mean_tokens": pooled == "mean",
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
            "pooling_mode_lasttoken": pooled == "last",
        },
    )


def write_modules(folder: Path, modules: list[tuple[str, str]], contract: EncoderContract) -> None:
    """Write the list of modules (subfolder and class) and the first one's limit."""
    write_json(
        folder / "modules.json",
        [
            {"idx": number, "name": str(number), "path": path, "type": kind}
            for number, (path, kind) in enumerate(modules)
        ],
    )
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": contract.max_tokens, "do_lower_case": False})


def prompts(contract: EncoderContract) -> dict[str, Any]:
    """The prefixes; sentence-transformers and PyLate apply the one of passages by default, the other by its name."""
    passages = contract.prefix if contract.passage_prefix is None else contract.passage_prefix
    if not (contract.prefix or passages):
        return {"prompts": {}, "default_prompt_name": None}
    return {
        "prompts": {"query": contract.prefix, "document": passages},
        "default_prompt_name": "document",
    }


def write_dense_config(folder: Path, head: dict[str, Any]) -> None:
    """Write the configuration of the head as a Dense module, which this project reads back as well.

    Args:
        folder: of the module.
        head: ``in``, ``out`` and ``bias`` of the projection.
    """
    write_json(
        folder / "config.json",
        {
            "in_features": head["in"],
            "out_features": head["out"],
            "bias": head["bias"],
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    )
