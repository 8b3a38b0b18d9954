"""The section of a model card that shows how to load the folder."""

from optical_scale.backbones.encoder import EncoderContract
from optical_scale.export import pylate, sentence_transformers


def use_text(name: str, contract: EncoderContract) -> str:
    """For the sentence-transformers layout."""
    calls = ("encode_query", "encode_document") if _two_prefixes(contract) else ("encode", "encode")
    return f"""Dense vectors, with sentence-transformers. {_prompt(contract)}

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}")
similarities = model.similarity(model.{calls[0]}(["a query"]), model.{calls[1]}(["a passage"]))
```

{_token_vectors(name, contract, sentence_transformers.DENSE)}
{_continue(name, contract)}"""


def use_late_interaction(name: str, contract: EncoderContract) -> str:
    """For the PyLate layout."""
    left_out = "special tokens and punctuation" if contract.mask_punctuation else "special tokens"
    return f"""Late interaction, with PyLate 1. {_prompt(contract)}

```python
from pylate import models

model = models.ColBERT("{name}")
queries = model.encode(["a query"], is_query=True)
documents = model.encode(["a passage"], is_query=False)
```

The same, with sentence-transformers 6:

```python
from sentence_transformers import MultiVectorEncoder

model = MultiVectorEncoder("{name}")
scores = model.similarity(model.encode_query(["a query"]), model.encode_document(["a passage"]))
```

Both keep the vectors of {left_out} in queries and drop them from documents.

{_token_vectors(name, contract, pylate.DENSE)}
{_continue(name, contract)}"""


def use_vision(name: str, contract: EncoderContract) -> str:
    """For images."""
    dense = f"{sentence_transformers.DENSE}/model.safetensors"
    note = f"\n`{dense}` holds the linear head that maps these vectors to the teacher's width.\n" * bool(contract.head)
    what, output = "Patch vectors", "states_BTD = model(**inputs).last_hidden_state"
    if contract.pooled == "first":
        what, output = "Dense vectors", "states_BD = model(**inputs).pooler_output"
        note += "\n`token_vectors` of `optical_scale.backbones.readout` gives those of patches.\n"
    return f"""{what}, with transformers:

```python
from transformers import AutoImageProcessor, AutoModel

processor = AutoImageProcessor.from_pretrained("{name}")
model = AutoModel.from_pretrained("{name}")
inputs = processor(image, return_tensors="pt")
{output}
```
{note}"""


def _prompt(contract: EncoderContract) -> str:
    if _two_prefixes(contract):
        return (
            f"`{contract.prefix}` is put before queries, `{contract.passage_prefix}` before passages and by default; "
            'where a library does not tell them apart, pass `prompt_name="query"`. '
        )
    return f"`{contract.prefix}` is put before every input by default. " if contract.prefix else ""


def _two_prefixes(contract: EncoderContract) -> bool:
    return contract.passage_prefix not in (None, contract.prefix)


def _token_vectors(name: str, contract: EncoderContract, dense: str) -> str:
    head = (
        f'head = load_file("{name}/{dense}/model.safetensors")\n'
        'states_BTD = torch.nn.functional.linear(states_BTD, head["linear.weight"], head.get("linear.bias"))\n'
        if contract.head
        else ""
    )
    extra = "from safetensors.torch import load_file\n" if contract.head else ""
    prefix = f"{contract.prefix!r} + " if contract.prefix else ""
    return f"""Token vectors, with transformers:

```python
import torch
{extra}from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = AutoModel.from_pretrained("{name}", dtype=torch.float32)
inputs = tokenizer([{prefix}"a query"], padding=True, truncation=True, return_tensors="pt")
states_BTD = model(**inputs).last_hidden_state
{head}```

For MaxSim, {contract.mask_rule}.
"""


def _continue(name: str, contract: EncoderContract) -> str:
    prefix = f', "prefix": "{contract.prefix}"' if contract.prefix else ""
    if contract.passage_prefix is not None:
        prefix += f', "passage_prefix": "{contract.passage_prefix}"'
    if contract.mask_punctuation:
        prefix += ', "mask_punctuation": true'
    return f"""As a teacher or the start of a student, in a configuration of `optical-scale train`:

```yaml
backbone: {{"kind": "text", "pretrained": "{name}", "max_tokens": {contract.max_tokens}{prefix}}}
```
"""


def use_vision_text(name: str, contract: EncoderContract) -> str:
    """Both towers with sentence-transformers, each by itself with transformers."""
    return f"""With sentence-transformers 6, images and texts in one space:

```python
from PIL import Image
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}")
images = model.encode([Image.open("photo.jpg")])
texts = model.encode(["a photo", "una foto"])
print(model.similarity(images, texts))
```

`vision/` and `text/` are complete folders of their own, for transformers' `AutoModel` and for optical-scale.
"""
