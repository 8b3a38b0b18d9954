"""Tiny training runs: configuration files for `optical-scale train`, and what their metrics say."""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.support.corpus import write_shards, write_tokenizer


def tiny_xlmr(pieces: int, dropout: float = 0.0) -> dict[str, Any]:
    """A two-layer XLM-R of width 32, as `architecture` in a configuration."""
    return {
        "model_type": "xlm-roberta",
        "vocab_size": pieces,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 40,
        "pad_token_id": 1,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
    }


class Workshop:
    """Shards and a tokenizer in one folder, and training configurations over them; more words change the encoders."""

    def __init__(self, folder: Path, pairs: int = 48, **architecture: Any) -> None:
        self.folder = folder
        self.architecture = architecture
        self.shards = write_shards(folder / "shards", pairs)
        self.pieces = write_tokenizer(folder / "tokenizer")
        self.teacher = {"backbone": self.backbone(0.0)}

    def backbone(self, dropout: float) -> dict[str, Any]:
        """A tiny encoder from scratch."""
        return {
            "kind": "text",
            "architecture": tiny_xlmr(self.pieces, dropout) | self.architecture,
            "tokenizer": str(self.folder / "tokenizer"),
            "max_tokens": 24,
        }

    def config(self, run: str, dropout: float = 0.0, **sections: Any) -> Path:
        """Write ``{run}.yaml`` for the run folder ``run``; ``sections`` extend the defaults, one level deep."""
        values: dict[str, Any] = {
            "run": str(self.folder / run),
            "seed": 3,
            "teacher": self.teacher,
            "student": {"backbone": self.backbone(dropout)},
            "stream": {"sources": [{"shards": str(self.shards)}], "pairs_per_step": 8, "micro_batch_pairs": 4},
            "objective": {
                "name": "mixture",
                "parts": [
                    {"weight": 1.0, "objective": {"name": "optimal_transport", "epsilon": 0.05, "iterations": 10}},
                    {"weight": 0.5, "objective": {"name": "mse"}},
                ],
            },
            "optimization": {"steps": 6, "learning_rate": 0.005, "warmup": 0.2},
            "logging": {"every": 1},
        }
        for name, section in sections.items():
            known = values.get(name)
            values[name] = known | section if isinstance(known, dict) and isinstance(section, dict) else section
        path = self.folder / f"{run}.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        return path


def names_logged(run: Path) -> set[str]:
    """Everything that the logged steps of a run have a value of."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {name for line in lines if line["event"] == "step" for name in line} - {"event", "step", "time"}


def steps_of(run: Path, *names: str) -> dict[int, tuple[float, ...]]:
    """The named values of every logged step; where a step was repeated after a crash, the last time counts."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {line["step"]: tuple(line[name] for name in names) for line in lines if line["event"] == "step"}
