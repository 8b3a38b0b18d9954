"""The files that make a Hugging Face folder a PyLate model, for MaxSim between token vectors.

The layout is that of PyLate 1 (its "v3"): a Transformer and token-wise Dense modules. sentence-transformers 6 reads it
with its multi-vector class; folders of the latter cannot be read by PyLate. Special tokens, and punctuation
where it is masked, are on the skip list, which both libraries apply to documents. They keep them in queries, which this
project's own scores do not.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

from optical_scale.backbones.encoder import EncoderContract
from optical_scale.backbones.tokenizers import punctuation
from optical_scale.export.sentence_transformers import prompts, write_dense_config, write_modules
from optical_scale.runtime.files import write_json

DENSE = "1_Dense"


def write_layout(folder: Path, contract: EncoderContract, width: int) -> Path:
    """Write the configuration of all modules.

    PyLate adds a random projection to a model without any, so a student without head gets the identity.

    Args:
        folder: holds the backbone's configuration and the tokenizer already.
        contract: of a text encoder.
        width: of the backbone's token vectors.

    Returns:
        Where the head belongs.
    """
    dense = folder / DENSE
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    skipped = set(tokenizer("")["input_ids"])
    if contract.mask_punctuation:
        skipped |= set(punctuation(tokenizer).nonzero()[0].tolist())
    write_modules(
        folder,
        [("", "sentence_transformers.models.Transformer"), (DENSE, "pylate.models.Dense.Dense")],
        contract,
    )
    # A prefix is part of the text (`prompts`), unless queries and passages have a token of their own, which PyLate
    # inserts behind the first one, where they stand here as well.
    markers = contract.passage_prefix is not None and all(
        tokenizer.tokenize(prefix) == [prefix.strip()] for prefix in (contract.prefix, contract.passage_prefix)
    )
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "ColBERT",
            **prompts(EncoderContract("text") if markers else contract),
            "similarity_fn_name": "MaxSim",
            "query_prefix": contract.prefix.strip() if markers else "",
            "document_prefix": (contract.passage_prefix or "").strip() if markers else "",
            "query_length": contract.max_tokens,
            "document_length": contract.max_tokens,
            "do_query_expansion": False,
            "attend_to_expansion_tokens": False,
            "skiplist_words": sorted(tokenizer.convert_ids_to_tokens(sorted(skipped))),
        },
    )
    if contract.head is None:
        write_dense_config(dense, {"in": width, "out": width, "bias": False})
        save_file({"linear.weight": torch.eye(width)}, dense / "model.safetensors", metadata={"format": "pt"})
    return dense
