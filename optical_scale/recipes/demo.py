"""The whole path on embedded data: corpora, shards, tokenizers, teacher, vision tower, distillation, export, report."""

import contextlib
import logging
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

from optical_scale.config.convert import ConvertConfig
from optical_scale.config.export import ExportConfig
from optical_scale.config.loading import load
from optical_scale.config.run import EvaluateConfig, TokenizerConfig
from optical_scale.config.schema import Schema
from optical_scale.engine.launch import launch
from optical_scale.errors import EngineError
from optical_scale.evaluation.report import read_report
from optical_scale.evaluation.schema import Report
from optical_scale.recipes.convert import convert
from optical_scale.recipes.evaluate import evaluate
from optical_scale.recipes.export import export
from optical_scale.recipes.tokenizer import tokenizer
from optical_scale.runtime.files import folder_appears
from optical_scale.synthetic.bitext import write_bitext
from optical_scale.synthetic.paraphrases import write_paraphrases
from optical_scale.synthetic.scenes import write_scenes

logger = logging.getLogger(__name__)

Config = TypeVar("Config", bound=Schema)

_SEED = 0
_SHARDS = ("bitext", "bitext_test", "paraphrases", "paraphrases_test", "scenes", "scenes_test")
_RUNS = ("teacher", "vision", "student")


def demo(output: Path, processes: int) -> Report:
    """Run every stage inside ``output`` and return the report; stages whose result is there already are skipped.

    Each stage is an ordinary verb with an ordinary YAML file in ``output/configs``, to be repeated and changed by hand,
    for example ``cd output; optical-scale train configs/student.yaml run=runs/second``.

    Args:
        output: folder for everything the demo makes.
        processes: ranks of the training runs.

    Raises:
        EngineError: a training process failed; its own message stands above.
    """
    output.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(output):
        _copy_configs()
        with _stage("corpora") as missing:
            if missing:
                _write_corpora(Path("corpora"))
        for name in _SHARDS:
            with _stage(f"shards/{name}") as missing:
                if missing:
                    convert(_config(ConvertConfig, f"convert_{name}"))
        for name in ("english", "multilingual"):
            with _stage(f"tokenizers/{name}") as missing:
                if missing:
                    tokenizer(_config(TokenizerConfig, f"tokenizer_{name}"))
        for name in _RUNS:
            with _stage(f"models/{name}") as missing:
                if missing:
                    _train(name, processes)
                    export(ExportConfig(checkpoint=Path("runs", name), output=Path("models", name)))
        with _stage("models/untrained") as missing:
            if missing:
                untrained = Path("runs/student/checkpoints/step_000000")
                export(ExportConfig(checkpoint=untrained, output=Path("models/untrained")))
        with _stage("report") as missing:
            return evaluate(_config(EvaluateConfig, "evaluate")) if missing else read_report(Path("report/report.json"))


def _copy_configs() -> None:
    """Put the YAML files beside the data; files already there, which the user may have changed, stay."""
    Path("configs").mkdir(exist_ok=True)
    for source in files("optical_scale.recipes").joinpath("demo_configs").iterdir():
        target = Path("configs", source.name)
        if source.name.endswith(".yaml") and not target.exists():
            target.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")


def _config(model: type[Config], name: str) -> Config:
    return load(model, Path("configs", f"{name}.yaml"))


def _write_corpora(folder: Path) -> None:
    with folder_appears(folder) as temporary:
        for part in ("phrases", "paraphrases", "scenes"):
            (temporary / part).mkdir()
        write_bitext(temporary / "phrases", seed=_SEED, high=12_000, low=1_200, validation=500, test=500)
        write_paraphrases(temporary / "paraphrases", seed=_SEED, train=14_000, validation=500, test=500)
        write_scenes(temporary / "scenes", seed=_SEED, train=3_000, validation=300, test=300)


def _train(name: str, processes: int) -> None:
    """Train in processes of their own, as on a cluster; an interrupted run continues."""
    status = launch(processes, "optical_scale", ["train", f"configs/{name}.yaml"])
    if status:
        raise EngineError(f"training {name} ended with status {status}; its message stands above. Run the demo again")


@contextlib.contextmanager
def _stage(result: str) -> Iterator[bool]:
    """Announce a stage, say whether its result is missing, and time it."""
    missing = not Path(result).exists()
    if not missing:
        logger.info("== %s: there already", result)
        yield False
        return
    logger.info("== %s", result)
    began = time.perf_counter()
    yield True
    logger.info("== %s took %.0f s", result, time.perf_counter() - began)
