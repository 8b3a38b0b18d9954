import json
import logging

import pytest

from optical_scale.runtime.log import MetricsFile, configure, progress


@pytest.fixture(autouse=True)
def unchanged_logger():
    logger = logging.getLogger("optical_scale")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


@pytest.mark.parametrize(
    ("rank", "verbose", "expected"),
    [
        (0, False, "i\nw\n"),
        (0, True, "d\ni\nw\n"),
        (2, False, "[rank 2] w\n"),
        (2, True, "[rank 2] d\n[rank 2] i\n[rank 2] w\n"),
    ],
)
def test_ranks_speak_when_they_should(capsys, rank, verbose, expected):
    configure(rank, verbose)
    configure(rank, verbose)
    logger = logging.getLogger("optical_scale.training.trainer")
    logger.debug("d")
    logger.info("i")
    logger.warning("w")
    captured = capsys.readouterr()
    assert captured.err == expected
    assert captured.out == ""


def test_progress_passes_items_through_and_is_silent_without_a_terminal(capsys):
    assert list(progress(iter("abc"), "letters", 3)) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_metrics_are_on_disk_before_the_file_is_closed(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    first = MetricsFile(path)
    first.write("step", {"step": 1, "loss": 0.5})
    assert json.loads(path.read_text()) == {"event": "step", "step": 1, "loss": 0.5}
    first.close()
    second = MetricsFile(path)
    second.write("evaluation", {"language": "größe"})
    second.close()
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["step", "evaluation"]
    assert "größe" in lines[1]


def test_numbers_that_are_not_finite_are_null_for_strict_readers(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.write("step", {"loss": float("nan"), "norm": float("inf"), "step": 3})
    file.close()
    [line] = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=pytest.fail) == {"event": "step", "loss": None, "norm": None, "step": 3}
