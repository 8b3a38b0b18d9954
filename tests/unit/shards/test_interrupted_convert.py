"""Conversions over several processes and with interruptions: the same bytes as in one go."""

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from optical_scale.config.convert import ConvertConfig
from optical_scale.errors import CorpusError, ShardError
from optical_scale.recipes.convert import convert
from optical_scale.runtime.files import lock_file
from optical_scale.shards import unfinished

PAIRS = 6_000
HIDDEN = ".out.unfinished"


@pytest.fixture
def bitext(tmp_path):
    """Two languages; a third of the pairs are duplicates, some across chunks, and some are blank."""
    draw = random.Random(0)
    numbers = [draw.randrange(PAIRS) for _ in range(PAIRS)]
    (tmp_path / "x.en").write_text("".join(f"line {n}\n" if n % 50 else "\n" for n in numbers))
    (tmp_path / "x.sw").write_text("".join(f"mstari {n}\n" for n in numbers))
    corpora = [
        {"format": "moses", "name": name, "source": "x.en", "target": "x.sw", "language": language}
        for name, language in (("a", "sw"), ("b", "tl"), ("c", "sw"))
    ]
    return {"folder": str(tmp_path), "corpora": corpora, "samples_per_shard": 1_500}


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(40):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "images" / f"i{number}.jpg")
    (tmp_path / "images" / "i7.jpg").write_bytes(b"broken")
    (tmp_path / "images.txt").write_text("".join(f"i{n}.jpg\n" for n in range(40)))
    (tmp_path / "captions.en").write_text("".join(f"picture {n}\n" for n in range(40)))
    corpus = {
        "format": "caption_lines",
        "name": "p",
        "images": "images",
        "image_list": "images.txt",
        "captions": {"en": "captions.en"},
        "pictures": {"faults": "drop"},
    }
    return {"folder": str(tmp_path), "corpora": [corpus], "samples_per_shard": 15}


def run(values, folder, restart=False, **changes):
    return convert(ConvertConfig.model_validate(values | {"output": folder / "out"} | changes), restart)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["bitext", "pictures"])
def test_the_number_of_processes_does_not_show(kind, request, tmp_path):
    values = request.getfixturevalue(kind)
    whole = [contents_of(values, tmp_path / str(processes), processes=processes) for processes in (1, 2, 3)]
    assert whole[0] == whole[1] == whole[2]
    dropped = json.loads(whole[0]["manifest.json"])["dropped"]
    assert {item["reason"] for item in dropped} == (
        {"duplicate", "blank"} if kind == "bitext" else {"unknown_image_format"}
    )


def contents_of(values, folder, **changes):
    run(values, folder, **changes)
    assert [path.name for path in folder.iterdir()] == ["out"], "nothing else is left"
    return contents(folder / "out")


class Interrupted(BaseException):
    """As Ctrl-C would be."""


@pytest.fixture
def every_chunk(monkeypatch):
    """Checkpoints after every chunk instead of every few seconds."""
    monkeypatch.setattr(unfinished, "_SECONDS", 0.0)


def interrupt(values, folder, monkeypatch, after):
    """Stop a conversion when so many checkpoints are written."""
    saves = []
    original = unfinished.write_json

    def stop(path, value):
        original(path, value)
        saves.append(path)
        if len(saves) == after:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(unfinished, "write_json", stop)
        with pytest.raises(Interrupted):
            run(values, folder, processes=1)
    assert not (folder / "out").exists()
    assert (folder / HIDDEN / "state.json").exists()


@pytest.mark.usefixtures("every_chunk")
@pytest.mark.parametrize("kind", ["bitext", "pictures"])
@pytest.mark.parametrize("after", [1, 2])
def test_goes_on_after_an_interruption(kind, request, tmp_path, monkeypatch, after):
    values = request.getfixturevalue(kind)
    whole = contents_of(values, tmp_path / "whole")
    cut = tmp_path / "cut"
    interrupt(values, cut, monkeypatch, after)
    if kind == "bitext":
        interrupt(values, cut, monkeypatch, 10 * after)
    assert contents_of(values, cut, processes=2) == whole


@pytest.mark.usefixtures("every_chunk")
def test_changed_settings_and_corpora_are_refused_until_restart(bitext, tmp_path, monkeypatch):
    interrupt(bitext, tmp_path, monkeypatch, 5)
    with pytest.raises(ShardError, match=r"config.samples_per_shard was 1500, is 9.*`--restart`"):
        run(bitext, tmp_path, samples_per_shard=9)
    lines = (tmp_path / "x.en").read_text()
    (tmp_path / "x.en").write_text(lines.replace("line 1", "LINE 1"))
    with pytest.raises(CorpusError, match=r"first 2,560 records differ. Bring the files back, or start over"):
        run(bitext, tmp_path)
    (tmp_path / "x.en").write_text("one\n")
    (tmp_path / "x.sw").write_text("moja\n")
    with pytest.raises(CorpusError, match=r"not those that the interrupted conversion read"):
        run(bitext, tmp_path)
    assert run(bitext, tmp_path, restart=True).counts == {"sw": 1, "tl": 1}
    assert not (tmp_path / HIDDEN).exists()


def test_two_conversions_into_one_folder_are_refused(bitext, tmp_path):
    hold = (
        "from optical_scale.runtime.files import lock_file as l; import sys, pathlib; f = l(pathlib.Path(sys.argv[1]));"
    )
    held = tmp_path / HIDDEN / "lock"
    other = subprocess.Popen(
        [sys.executable, "-c", f"{hold} print(1, flush=True); input()", held],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout.readline()
    with pytest.raises(ShardError, match="another conversion writes this folder"):
        run(bitext, tmp_path)
    other.communicate(b"\n")
    assert run(bitext, tmp_path).samples
    lock_file(held).close()


SCRIPT = """
import json, sys
from optical_scale.config.convert import ConvertConfig
from optical_scale.recipes.convert import convert
from optical_scale.shards import unfinished
if __name__ == "__main__":
    unfinished._SECONDS = 0.02
    convert(ConvertConfig.model_validate(json.loads(sys.argv[1])))
"""


def test_killed_at_any_moment_it_ends_with_the_same_bytes(bitext, tmp_path):
    whole = contents_of(bitext, tmp_path / "whole")
    (tmp_path / "convert.py").write_text(SCRIPT)
    cut = tmp_path / "cut"
    words = [sys.executable, tmp_path / "convert.py", json.dumps(bitext | {"output": str(cut / "out"), "processes": 2})]
    kills = 0
    for delay in (0.01, 0.05, 0.1, 0.02):
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        wait_until(lambda process=process: (cut / HIDDEN / "state.json").exists() or process.poll() is not None)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        if (cut / "out").exists():
            break
    assert kills
    if not (cut / "out").exists():
        run(bitext, cut)
    assert contents(cut / "out") == whole


def wait_until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.usefixtures("every_chunk")
def test_a_full_disk_keeps_what_is_done(bitext, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    whole = contents_of(bitext, tmp_path / "whole")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(ShardError, match=r"cannot be written .* Make room"):
            run(bitext, tmp_path, processes=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert json.loads((tmp_path / HIDDEN / "state.json").read_text())["items"]
    run(bitext, tmp_path)
    assert contents(tmp_path / "out") == whole


def test_orphaned_processes_end_themselves(bitext, tmp_path):
    """The kill above hit the parent only; no worker may stay behind."""
    (tmp_path / "convert.py").write_text(SCRIPT)
    values = bitext | {"output": str(tmp_path / "out"), "processes": 2}
    process = subprocess.Popen([sys.executable, tmp_path / "convert.py", json.dumps(values)], stderr=subprocess.DEVNULL)
    wait_until(lambda: len(children(process.pid)) >= 2 or process.poll() is not None)
    orphans = children(process.pid)
    assert orphans
    process.kill()
    process.wait()
    wait_until(lambda: not any(alive(pid) for pid in orphans))


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(child) for child in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def alive(pid):
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.usefixtures("every_chunk")
def test_near_duplicates_are_remembered_over_an_interruption(bitext, tmp_path, monkeypatch):
    values = bitext | {"filters": {"near_duplicates": {"bands": 2, "rows": 4}}}
    whole = contents_of(values, tmp_path / "whole", processes=2)
    reasons = {item["reason"] for item in json.loads(whole["manifest.json"])["dropped"]}
    assert reasons == {"duplicate", "blank", "near_duplicate"}
    interrupt(values, tmp_path / "cut", monkeypatch, 7)
    assert contents_of(values, tmp_path / "cut") == whole


def test_sides_out_of_step_are_told_or_refused(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("optical_scale"), "propagate", True)
    draw = random.Random(1)
    words = [["word"] * draw.randrange(3, 40) for _ in range(1200)]
    (tmp_path / "x.en").write_text("".join(f"{' '.join(line)}\n" for line in words))
    other = [["neno"] * len(line) for line in words]
    del other[500]
    (tmp_path / "x.sw").write_text("".join(f"{' '.join(line)}\n" for line in [*other, ["mwisho"]]))
    corpus = {"format": "moses", "name": "x", "source": "x.en", "target": "x.sw", "language": "sw"}
    values = {"folder": str(tmp_path), "corpora": [corpus], "filters": {"drop_duplicates": False}}
    with pytest.raises(CorpusError, match=r"x \(sw\): .* look shifted by -1 lines .* or set `misaligned: warn`"):
        run(values, tmp_path, misaligned="error")
    assert not (tmp_path / "out").exists()
    assert run(values, tmp_path).samples == 1200
    assert "look shifted by -1 lines" in caplog.text
