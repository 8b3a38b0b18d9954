"""README.md of an exported folder: what the model is, what it learnt from, how to use it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import EvalResult, ModelCardData

from optical_scale.backbones.encoder import EncoderContract
from optical_scale.export.usage import use_late_interaction, use_text, use_vision, use_vision_text
from optical_scale.export.verify import Verification

_POOLED = {
    "mean": "their mean",
    "first": "the vector that the network has for all of an image",
    "last": "the last one of a text",
}


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
        base_model: name on the hub of what the student started from, None if it has none.
        datasets: names on the hub of the training corpora.
        objective: what was minimised, in words.
        hyperparameters: settings worth repeating, by name.
        corpora: names of the training corpora with their licences, None where it was not told.
        results: last evaluations, each with ``evaluation``, ``language``, ``direction``, ``mode`` and ``metrics``.
        gaps: rows of a report's gap, each with ``stage``, ``evaluation``, ``direction``, ``mode``, ``metric``,
            ``high_mean``, ``low_mean``, ``gap`` and ``interval``.
        groups: the languages that the gap compares, by ``high`` and ``low``.
    """

    name: str
    license: str | None = None
    languages: Sequence[str] = ()
    pairs: Mapping[str, int] = field(default_factory=dict)
    steps: int = 0
    teacher: str | None = None
    base_model: str | None = None
    datasets: Sequence[str] = ()
    objective: str = ""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    corpora: Mapping[str, str | None] = field(default_factory=dict)
    results: Sequence[Mapping[str, Any]] = ()
    gaps: Sequence[Mapping[str, Any]] = ()
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)


def model_card(
    facts: CardFacts,
    contract: EncoderContract,
    parameters: int,
    verification: Verification,
    layout: Literal["sentence_transformers", "pylate", "vision_text"] = "sentence_transformers",
) -> str:
    """The card as Markdown with a YAML block that the Hub and sentence-transformers understand."""
    use = use_late_interaction if layout == "pylate" else use_text
    if contract.kind == "vision":
        use = use_vision_text if layout == "vision_text" else use_vision
    sections = [
        _metadata(facts, contract, layout),
        f"# {facts.name}\n",
        _summary(facts, contract, parameters),
        "## Training\n",
        _training(facts),
        _corpora(facts.corpora),
        _results(facts),
        _gaps(facts),
        "## Use\n",
        use(facts.name, contract),
        "## Check\n",
        f"Read back from this folder and computed in float32: {verification}.\n",
    ]
    return "\n".join(section for section in sections if section)


def _metadata(facts: CardFacts, contract: EncoderContract, layout: str) -> str:
    text = contract.kind == "text"
    both = layout == "vision_text"
    library = "PyLate" if text and layout == "pylate" else "sentence-transformers" if text or both else "transformers"
    extra = ["sentence-transformers", "multilingual"] if text or both else []
    extra += ["PyLate", "ColBERT", "multi-vector"] if text and layout == "pylate" else []
    values = ModelCardData(
        license=facts.license,
        language=sorted({tag.split("-")[0] for tag in facts.languages}) or None,
        library_name=library,
        pipeline_tag="sentence-similarity" if text else "image-feature-extraction",
        tags=["optimal-transport", "distillation", *extra],
        base_model=facts.base_model,
        datasets=list(facts.datasets) or None,
        model_name=facts.name,
        eval_results=[result for row in facts.results for result in _eval_results(row)] or None,
    )
    return f"---\n{values.to_yaml()}\n---\n"


def _eval_results(row: Mapping[str, Any]) -> list[EvalResult]:
    """One result of the Hub's `model-index` for each metric of a language."""
    return [
        EvalResult(
            task_type="information-retrieval",
            dataset_type="held-out",
            dataset_name=f"{row['evaluation'].replace('_', ' ')} ({row['language']})",
            dataset_config=row["language"],
            metric_type=name.lower(),
            metric_name=f"{name}, {row['mode'].replace('_', ' ')}, {row['direction'].replace('_', ' ')}",
            metric_value=value,
        )
        for name, value in row["metrics"].items()
    ]


def hub_name(folder: Path) -> str | None:
    """What a folder of the hub's cache is called there, owner/name; None for any other folder."""
    for part in folder.resolve().parts:
        kind, _, name = part.partition("--")
        if kind == "models" and "--" in name:
            return name.replace("--", "/", 1)
    return None


def _summary(facts: CardFacts, contract: EncoderContract, parameters: int) -> str:
    what = "A multilingual text encoder" if contract.kind == "text" else "An image encoder"
    origin = f"distilled from `{facts.teacher}`" if facts.teacher else "trained on translation pairs, without a teacher"
    width = f", vectors of width {contract.head['out']} after a linear head" if contract.head else ""
    limit = f", inputs of up to {contract.max_tokens} tokens" if contract.max_tokens else ""
    return (
        f"{what} for retrieval, {origin}: {parameters:,} parameters{width}{limit}. Token vectors serve late "
        f"interaction (MaxSim); {_POOLED[contract.pooled]} serves dense retrieval. Both are compared by cosine.\n"
    )


def _training(facts: CardFacts) -> str:
    lines = [f"- objective: {facts.objective}"] if facts.objective else []
    lines.append(f"- optimizer steps: {facts.steps:,}")
    lines += [f"- {name}: {value}" for name, value in facts.hyperparameters.items()]
    rows = [(tag, f"{count:,}") for tag, count in sorted(facts.pairs.items(), key=lambda item: -item[1])]
    return "\n".join([*lines, "", _table(["language", "pairs seen"], rows)] if rows else lines) + "\n"


def _corpora(corpora: Mapping[str, str | None]) -> str:
    if not corpora:
        return ""
    return (
        "## Corpora\n\n"
        + "\n".join(f"- {name}: {license or 'licence not stated'}" for name, license in corpora.items())
        + "\n"
    )


def _results(facts: CardFacts) -> str:
    """One table per task: a row per language, those with most training pairs first."""
    tasks: dict[str, list[Mapping[str, Any]]] = {}
    for row in facts.results:
        tasks.setdefault(_task(row), []).append(row)
    if not tasks:
        return ""
    parts = ["## Evaluation during training\n"]
    for task, rows in tasks.items():
        names = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
        ordered = sorted(rows, key=lambda row: (-facts.pairs.get(row["language"], 0), row["language"]))
        cells = [(row["language"], *(_number(row["metrics"].get(name)) for name in names)) for row in ordered]
        parts.append(f"{task[0].upper()}{task[1:]}:\n\n{_table(['language', *names], cells)}\n")
    return "\n".join(parts)


def _gaps(facts: CardFacts) -> str:
    if not facts.gaps:
        return ""
    groups = "; ".join(f"{name}-resource: {', '.join(tags)}" for name, tags in facts.groups.items())
    rows = [
        (
            _task(row), str(row["metric"]), str(row["stage"]), _number(row["high_mean"]), _number(row["low_mean"]),
            f"{row['gap']:.4f} ({row['interval'][0]:.4f} to {row['interval'][1]:.4f})",
        )
        for row in facts.gaps
    ]  # fmt: skip
    header = ["task", "metric", "model", "high", "low", "gap (95 % interval)"]
    return f"## Gap between languages\n\n{groups}.\n\n{_table(header, rows)}\n"


def _task(row: Mapping[str, Any]) -> str:
    return f"{row['evaluation']}, {row['direction']}, {row['mode']}".replace("_", " ")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column holds words, the others numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
