"""README.md of an exported folder: what the model is, what it learnt from, how to use it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from optical_scale.backbones.encoder import EncoderContract
from optical_scale.export.sentence_transformers import DENSE
from optical_scale.export.verify import Verification


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What the card tells about a training run, as plain values.

    Attributes:
        name: heading.
        license: SPDX identifier in the Hub's spelling (for example ``apache-2.0``), or None to leave it open.
        languages: BCP-47 tags that the student reads.
        pairs: training pairs seen, by language.
        steps: optimizer updates.
        teacher: name of the frozen model, None for a model trained on pairs alone.
        objective: what was minimised, in words.
        results: last evaluations, each with ``evaluation``, ``language``, ``mode`` and metrics.
    """

    name: str
    license: str | None = None
    languages: Sequence[str] = ()
    pairs: Mapping[str, int] = field(default_factory=dict)
    steps: int = 0
    teacher: str | None = None
    objective: str = ""
    results: Sequence[Mapping[str, Any]] = ()


def model_card(facts: CardFacts, contract: EncoderContract, parameters: int, verification: Verification) -> str:
    """The card as Markdown with a YAML block that the Hub and sentence-transformers understand."""
    sections = [
        _metadata(facts, contract),
        f"# {facts.name}\n",
        _summary(facts, contract, parameters),
        "## Training\n",
        _training(facts),
        _results(facts.results),
        "## Use\n",
        _use_text(facts, contract) if contract.kind == "text" else _use_vision(facts, contract),
        "## Check\n",
        f"Reloaded from this folder in float32: {verification}.\n",
    ]
    return "\n".join(section for section in sections if section)


def _metadata(facts: CardFacts, contract: EncoderContract) -> str:
    text = contract.kind == "text"
    values: dict[str, Any] = {
        "license": facts.license,
        "language": sorted({tag.split("-")[0] for tag in facts.languages}),
        "library_name": "sentence-transformers" if text else "transformers",
        "pipeline_tag": "sentence-similarity" if text else "image-feature-extraction",
        "tags": ["optimal-transport", "distillation", *(["sentence-transformers", "multilingual"] if text else [])],
    }
    block = yaml.safe_dump({key: value for key, value in values.items() if value}, sort_keys=False)
    return f"---\n{block}---\n"


def _summary(facts: CardFacts, contract: EncoderContract, parameters: int) -> str:
    what = "A multilingual text encoder" if contract.kind == "text" else "An image encoder"
    origin = f"distilled from `{facts.teacher}`" if facts.teacher else "trained on translation pairs, without a teacher"
    width = f", vectors of width {contract.head['out']} after a linear head" if contract.head else ""
    limit = f", inputs of up to {contract.max_tokens} tokens" if contract.max_tokens else ""
    return (
        f"{what} for retrieval, {origin}: {parameters:,} parameters{width}{limit}. Token vectors serve late "
        "interaction (MaxSim); their mean serves dense retrieval. Both are compared by cosine.\n"
    )


def _training(facts: CardFacts) -> str:
    lines = [f"- objective: {facts.objective}"] if facts.objective else []
    lines.append(f"- optimizer steps: {facts.steps:,}")
    table = ["", "| language | pairs seen |", "|---|---:|"]
    table += [f"| {tag} | {count:,} |" for tag, count in sorted(facts.pairs.items(), key=lambda item: -item[1])]
    return "\n".join(lines + (table if facts.pairs else [])) + "\n"


def _results(results: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (f"{row['language']}, {row['direction']}, {row['mode']}", name, value)
        for row in results
        for name, value in row["metrics"].items()
    ]
    if not rows:
        return ""
    body = "\n".join(f"| {what} | {name} | {value:.4f} |" for what, name, value in rows)
    return f"## Evaluation during training\n\n| task | metric | value |\n|---|---|---:|\n{body}\n"


def _use_text(facts: CardFacts, contract: EncoderContract) -> str:
    prompt = f"`{contract.prefix}` is put before every input by default. " if contract.prefix else ""
    head = (
        f'head = load_file("{facts.name}/{DENSE}/model.safetensors")\n'
        'states_BTD = torch.nn.functional.linear(states_BTD, head["linear.weight"], head.get("linear.bias"))\n'
        if contract.head
        else ""
    )
    extra = "from safetensors.torch import load_file\n" if contract.head else ""
    prefix = f"{contract.prefix!r} + " if contract.prefix else ""
    return f"""Dense vectors, with sentence-transformers. {prompt}

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{facts.name}")
similarities = model.similarity(model.encode(["a query"]), model.encode(["a passage"]))
```

Token vectors, with transformers:

```python
import torch
{extra}from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{facts.name}")
model = AutoModel.from_pretrained("{facts.name}", dtype=torch.float32)
inputs = tokenizer([{prefix}"a query"], padding=True, truncation=True, return_tensors="pt")
states_BTD = model(**inputs).last_hidden_state
{head}```

For MaxSim, {contract.mask_rule}.
"""


def _use_vision(facts: CardFacts, contract: EncoderContract) -> str:
    head = f"\n`{DENSE}/model.safetensors` holds the linear head that maps these vectors to the teacher's width.\n"
    return f"""Patch vectors, with transformers:

```python
from transformers import AutoImageProcessor, AutoModel

processor = AutoImageProcessor.from_pretrained("{facts.name}")
model = AutoModel.from_pretrained("{facts.name}")
states_BTD = model(**processor(image, return_tensors="pt")).last_hidden_state
```
{head if contract.head else ""}"""
