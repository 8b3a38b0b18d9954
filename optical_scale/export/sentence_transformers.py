"""The files that make a Hugging Face folder a sentence-transformers model as well.

The model is mean pooling over the attention mask, the head as a Dense module, unit length. A head without bias or with
one commutes with the mean, so the result equals the mean of the token vectors after the head.
The formats are those that sentence-transformers has read since release 2 and still reads in release 6.
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from optical_scale.backbones.encoder import EncoderContract
from optical_scale.runtime.files import write_json

DENSE = "2_Dense"


def write_layout(folder: Path, contract: EncoderContract, width: int) -> None:
    """Write the configuration of all modules.

    Args:
        folder: holds the backbone already.
        contract: of a text encoder.
        width: of the backbone's token vectors.
    """
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    if contract.head is not None:
        modules.append((DENSE, "Dense"))
    if contract.normalize:
        modules.append((f"{len(modules)}_Normalize", "Normalize"))
    write_json(
        folder / "modules.json",
        [
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for number, (path, kind) in enumerate(modules)
        ],
    )
    write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": width,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    )
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": contract.max_tokens, "do_lower_case": False})
    prompts = {"query": contract.prefix, "document": contract.prefix}
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "prompts": prompts if contract.prefix else {},
            "default_prompt_name": "document" if contract.prefix else None,
            "similarity_fn_name": "cosine",
        },
    )


def write_dense(folder: Path, head: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write the head as the Dense module, which is where this project reads it back from as well.

    Args:
        folder: of the export.
        head: ``in``, ``out`` and ``bias`` of the projection.
        tensors: ``weight`` (out, in) and, if there is one, ``bias`` (out).
    """
    from safetensors.torch import save_file

    write_json(
        folder / DENSE / "config.json",
        {
            "in_features": head["in"],
            "out_features": head["out"],
            "bias": head["bias"],
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    )
    named = {f"linear.{name}": tensor for name, tensor in tensors.items()}
    save_file(named, folder / DENSE / "model.safetensors", metadata={"format": "pt"})
