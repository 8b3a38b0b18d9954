"""Runs whose optimizer and parameters lie in files continue bit by bit; this needs DeepSpeed's asynchronous reads."""

import shutil
from pathlib import Path

import pytest

from optical_scale.config.export import ExportConfig
from optical_scale.recipes.export import export
from tests.support.processes import TRAIN, finish, start
from tests.support.runs import Workshop, steps_of

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    from torch.utils.cpp_extension import _get_build_directory

    if not (Path(_get_build_directory("async_io", False)) / "async_io.so").is_file():
        pytest.skip("DeepSpeed's async_io op is not built on this machine")
    # One group of matrices is above the mebibyte from which DeepSpeed uses a file, the others are not.
    return Workshop(tmp_path_factory.mktemp("offload"), hidden_size=128, intermediate_size=1536)


def test_the_continued_run_is_the_uninterrupted_one(workshop, tmp_path):
    engine = {
        "zero_stage": 3,
        "precision": "bf16",
        "offload_optimizer": "nvme",
        "offload_parameters": "nvme",
        "update_elements": 300_000,
        "nvme": str(tmp_path / "disk"),
    }
    student = {"backbone": workshop.backbone(0.1), "engine": engine, "freeze": ["embeddings"]}
    config = workshop.config("run", student=student, checkpoints={"every": 3, "keep": 3}, optimization={"steps": 5})
    run = workshop.folder / "run"
    finish(start([*TRAIN, config], size=2), timeout=200)
    smooth = steps_of(run, "loss", "gradient_norm")
    kept = list((run / "checkpoints" / "step_000003" / "student").rglob("exp_avg-*.swp"))
    assert len(kept) == 2, "one group per rank shall lie in a file"

    shutil.rmtree(run / "checkpoints" / "step_000005")
    shutil.rmtree(tmp_path / "disk")
    (run / "metrics.jsonl").unlink()
    output, _ = finish(start([*TRAIN, config], size=2), timeout=200)
    assert "continuing after step 3" in output
    rest = steps_of(run, "loss", "gradient_norm")
    assert rest == {step: smooth[step] for step in (4, 5)}
    report = export(ExportConfig(checkpoint=run, output=tmp_path / "exported"))
    assert report.verification.difference <= report.verification.allowed
