"""A checkpoint becomes a verified model folder with its card."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from optical_scale.backbones.encoder import MASK_RULES, EncoderContract
from optical_scale.config.backbones import VisionBackbone
from optical_scale.config.export import ExportConfig
from optical_scale.config.loading import load
from optical_scale.config.run import TrainConfig
from optical_scale.engine.towers import VISION
from optical_scale.errors import ConfigError
from optical_scale.evaluation.schema import Report
from optical_scale.export.hf import ExportReport, TextTower, export_huggingface
from optical_scale.export.model_card import CardFacts, hub_name
from optical_scale.export.push import push, require_token
from optical_scale.export.source import choose_checkpoint
from optical_scale.recipes.describe_objective import describe
from optical_scale.records import TextPair
from optical_scale.runtime.log import progress
from optical_scale.shards.manifest import read_manifest
from optical_scale.shards.reader import ShardFolder
from optical_scale.training.state import TrainState


def export(config: ExportConfig) -> ExportReport:
    """Choose the checkpoint, write the folder, verify it, describe it, and push it if asked.

    Raises:
        CheckpointError: no complete, undamaged checkpoint.
        ExportError: the target exists, the reloaded model differs from the trained one, or the hub refuses it.
    """
    if config.push_to is not None:
        require_token()
    checkpoint = choose_checkpoint(config.checkpoint)
    run = load(TrainConfig, checkpoint / "config.yaml")
    tower = checkpoint
    if run.student.vision is not None:
        tower = checkpoint / VISION if config.tower == "vision" else checkpoint
        run = run.towers()["images" if config.tower == "vision" else "pairs"]
    elif config.tower is not None:
        raise ConfigError("tower: the student of this run has one tower; leave it out")
    report = export_huggingface(
        tower,
        config.output,
        dtype=config.dtype,
        layout=config.layout,
        max_shard_bytes=config.max_shard_bytes,
        texts=(lambda: _texts(config.trim_to)) if config.trim_to else None,
        trained_in=run.student.engine.precision,
        adapter_scale=run.student.lora.scale if run.student.lora else None,
        text=_text_tower(config, run) if config.layout == "vision_text" else None,
        onnx=config.onnx,
        card=_card(config, run, checkpoint),
    )
    return report if config.push_to is None else report._replace(pushed=push(config.output, config.push_to))


def _text_tower(config: ExportConfig, run: TrainConfig) -> TextTower:
    """The given folder, or the run's teacher where that is a folder as it is."""
    teacher = run.teacher.backbone if run.teacher else None
    if isinstance(teacher, VisionBackbone):
        raise ConfigError("layout: vision_text joins a trained tower of images to texts; this run trained one of texts")
    told = EncoderContract("text")
    if teacher is not None:
        told = EncoderContract(
            "text",
            teacher.max_tokens,
            teacher.prefix,
            mask_rule=MASK_RULES[teacher.mask_punctuation],
            passage_prefix=teacher.passage_prefix,
        )
    if config.text is not None:
        return TextTower(config.text, told)
    if teacher is None or teacher.pretrained is None or teacher.layers is not None or teacher.vocabulary != "keep":
        raise ConfigError("text: the run's teacher is not a folder as it is; give that of a text encoder, text=FOLDER")
    if not teacher.pretrained.is_dir():
        raise ConfigError(f"text: the teacher's folder {teacher.pretrained} is not there; give text=FOLDER")
    return TextTower(teacher.pretrained, told)


def _texts(paths: Iterable[Path]) -> Iterator[str]:
    """Every target text of shard folders and every line of text files.

    Raises:
        ConfigError: a path is neither.
    """
    for path in paths:
        if path.is_dir():
            folder = ShardFolder(path)
            for record in progress(folder.iterate(), f"reading {path}", total=len(folder.select(None)), unit="sample"):
                if isinstance(record, TextPair):
                    yield record.target
                else:
                    yield from (caption.text for caption in record.captions)
        elif path.is_file():
            with path.open(encoding="utf-8", newline="\n") as file:
                yield from (line.rstrip("\n") for line in file)
        else:
            raise ConfigError(f"trim_to: {path} is neither a shard folder nor a text file; correct the path")


def _card(config: ExportConfig, run: TrainConfig, checkpoint: Path) -> CardFacts:
    state = TrainState.from_json(json.loads((checkpoint / "train_state.json").read_text(encoding="utf-8")))
    last = max((result["step"] for result in state.results), default=0)
    teacher = run.teacher.backbone if run.teacher else None
    start = run.student.backbone.pretrained
    report = None if config.report is None else _report(config.report)
    return CardFacts(
        name=config.output.name,
        license=config.license,
        languages=[*state.pairs, *([] if run.teacher else ["en"])],
        pairs=state.pairs,
        steps=state.step,
        teacher=None if teacher is None else config.teacher or _model_name(teacher.pretrained),
        base_model=config.base_model or (hub_name(start) if start else None),
        datasets=config.datasets,
        objective=describe(run.objective),
        hyperparameters=_hyperparameters(run),
        corpora=_corpora(config, run),
        results=[result for result in state.results if result["step"] == last],
        gaps=[] if report is None else [gap.model_dump(mode="json") for gap in report.gaps],
        groups=report.groups.model_dump(mode="json") if report and report.groups else {},
    )


def _model_name(folder: Path | None) -> str:
    return "a teacher from scratch" if folder is None else hub_name(folder) or folder.name


def _report(path: Path) -> Report:
    # Its module draws figures; most exports do without that library.
    from optical_scale.evaluation.report import read_report

    return read_report(path)


def _hyperparameters(run: TrainConfig) -> dict[str, object]:
    how, lora = run.optimization, run.student.lora
    trained = {} if lora is None else {"low-rank adapters": f"rank {lora.rank}, alpha {lora.alpha:g}, merged"}
    if run.student.freeze:
        trained = {"frozen": ", ".join(run.student.freeze)}
    return trained | {
        "pairs per step": run.stream.pairs_per_step,
        "language temperature": run.stream.temperature,
        "learning rate": f"{how.learning_rate:g}, warm-up {how.warmup:g}, decay {how.decay}",
        "weight decay": how.weight_decay,
        "precision": run.student.engine.precision,
        "ZeRO stage": run.student.engine.zero_stage,
        "seed": run.seed,
    }


def _corpora(config: ExportConfig, run: TrainConfig) -> dict[str, str | None]:
    """Names from the shards, if they are still there, and licences from the configuration."""
    names: dict[str, str | None] = {}
    for source in run.stream.sources:
        folder = Path(source.shards)  # shards behind a URL are not looked up
        if (folder / "manifest.json").is_file():
            names |= dict.fromkeys(read_manifest(folder).corpora)
    if names and (unknown := sorted(set(config.corpora) - set(names))):
        raise ConfigError(f"corpora: the shards of this run hold {', '.join(names)}; found {', '.join(unknown)}")
    return names | config.corpora
