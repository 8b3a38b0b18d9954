"""A small study through the command line: one cell fails, is mended, and everything else is left alone."""

import csv
import json
import os
import subprocess
import sys

import pytest
import yaml

from tests.support.processes import ROOT
from tests.support.runs import Workshop

pytestmark = pytest.mark.end_to_end


def study_file(workshop, **changes):
    base = workshop.config(
        "base",
        optimization={"steps": 2},
        evaluation=[{"name": "bitext", "shards": str(workshop.shards), "limit": 12}],
    )
    values = {
        "output": str(workshop.folder / "study"),
        "base": str(base),
        "axes": {
            "objective": {
                "mse": {"objective": {"name": "mse"}},
                "ot": {
                    "objective": {"name": "optimal_transport", "epsilon": 0.05, "iterations": 5},
                    "stream.sources": [{"shards": str(workshop.folder / "later")}],
                },
            },
            "seed": [0, 1],
        },
        "groups": {"high": ["de"], "low": ["sw"]},
        "baselines": [{"objective": "mse"}],
        "jobs": 2,
        "keep": "models",
    } | changes
    path = workshop.folder / "study.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def study(path, *more):
    command = [sys.executable, "-m", "optical_scale", "study", str(path), *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=500)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    workshop = Workshop(tmp_path_factory.mktemp("study"))
    path = study_file(workshop)
    nothing = study(path, "--only", "ot-seed0")
    first = study(path)
    after_first = {cell.name: (cell / "cell.json").stat().st_mtime_ns for cell in cells(workshop, "mse")}
    (workshop.folder / "later").symlink_to(workshop.shards)
    second = study(path)
    return workshop, path, first, after_first, second, nothing


def cells(workshop, prefix=""):
    return sorted((workshop.folder / "study" / "cells").glob(f"{prefix}*"))


def test_a_part_whose_only_cell_fails_has_no_report(story):
    *_, nothing = story
    assert nothing.returncode == 1, nothing.stderr
    assert nothing.stdout.startswith("failed: ot-seed0 `train` ended with status 2")
    assert nothing.stdout.endswith("0 of 4 cells are done; no report yet\n")


def test_a_failing_cell_does_not_stop_the_others(story):
    _, _, first, after_first, *_ = story
    assert first.returncode == 1, first.stderr
    assert set(after_first) == {"mse-seed0", "mse-seed1"}
    assert "failed: ot-seed0 `train` ended with status 2" in first.stdout
    assert "2 of 4 cells are done" in first.stdout


def test_the_same_call_skips_what_is_done_and_repeats_what_failed(story):
    workshop, _, _, after_first, second, _ = story
    assert second.returncode == 0, second.stdout + second.stderr
    assert "2 of 4 cells are done; 2 to run" in second.stderr
    assert {cell.name: (cell / "cell.json").stat().st_mtime_ns for cell in cells(workshop, "mse")} == after_first
    assert not list(workshop.folder.rglob("failed.json"))
    assert not list((workshop.folder / "study").rglob("checkpoints"))


def test_the_report_has_means_and_deviations_over_seeds(story):
    workshop, _, _, _, second, _ = story
    folder = workshop.folder / "study"
    results = json.loads((folder / "results.json").read_text())
    found = {
        cell["labels"]["seed"]: cell["metrics"]["bitext/text_to_text/dense"]["sw"]["MRR"]
        for cell in results["cells"]
        if cell["labels"]["objective"] == "ot"
    }
    (row,) = [
        row
        for row in csv.DictReader((folder / "results.csv").open())
        if (row["objective"], row["mode"], row["metric"], row["name"]) == ("ot", "dense", "MRR", "sw")
    ]
    assert float(row["mean"]) == pytest.approx(sum(found.values()) / 2)
    assert float(row["deviation"]) == pytest.approx(abs(found["0"] - found["1"]) / 2**0.5)
    assert row["replicates"] == "2"
    assert f"{float(row['mean']):.3f} ± {float(row['deviation']):.3f}" in second.stdout
    assert {(c["labels"]["objective"], c["baseline"]["objective"]) for c in results["comparisons"]} == {("ot", "mse")}
    assert (folder / "report.html").exists()


def test_a_mistake_in_any_cell_stops_before_the_first(story):
    workshop, path, *_ = story
    values = yaml.safe_load(path.read_text())
    values["output"] = str(workshop.folder / "other")
    values["axes"]["objective"]["wrong"] = {"optimization.learning_rat": 1.0}
    wrong = workshop.folder / "wrong.yaml"
    wrong.write_text(yaml.safe_dump(values))
    done = study(wrong)
    assert done.returncode == 2
    assert "cells wrong-seed0, wrong-seed1: override 'optimization.learning_rat=1.0'" in done.stderr
    assert "did you mean 'learning_rate'?" in done.stderr
    assert not (workshop.folder / "other").exists()


def test_other_settings_in_a_used_folder_are_refused(story):
    _, path, *_ = story
    done = study(path, "overrides={optimization.learning_rate: 0.1}")
    assert done.returncode == 2
    assert "optimization.learning_rate: was 0.005, is 0.1" in done.stderr


def test_slurm_gets_the_cells_that_are_not_done(story):
    workshop, path, *_ = story
    assert "nothing to submit" in study(path, "--slurm").stdout
    (workshop.folder / "study" / "cells" / "ot-seed0" / "cell.json").unlink()
    done = study(path, "--slurm")
    script = (workshop.folder / "study" / "study.sbatch").read_text()
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --array=2%2\n" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert "all 2 cells that were asked for are done" in study(path, "--slurm", "--only", "mse-*").stdout
    assert study(path, "--only", "mse-*").returncode == 0
    assert not (workshop.folder / "study" / "cells" / "ot-seed0" / "cell.json").exists()
    assert study(path, "--slurm", "--only", "*-seed0").returncode == 0
    assert "#SBATCH --array=2%2\n" in (workshop.folder / "study" / "study.sbatch").read_text()
    assert study(path, "--only", "mse-*", "--collect").returncode == 2
    unknown = study(path, "--only", "kl-*")
    assert unknown.returncode == 2
    assert "found 'kl-*', which no cell matches; names are like mse-seed0, ot-seed0" in unknown.stderr
    again = study(path, "--cell", "2")
    assert again.returncode == 0, again.stderr
    assert "nothing to submit" in study(path, "--slurm").stdout
