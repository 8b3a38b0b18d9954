import argparse
import importlib
import subprocess
import sys

import pytest

from optical_scale import __version__
from optical_scale.cli import main as module
from optical_scale.cli.main import VERBS, main


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_worked_examples(verb, capsys):
    written = importlib.import_module(f"optical_scale.cli.{verb}")
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"optical-scale {verb}" in written.EPILOG
    assert written.EPILOG.strip() in shown
    assert "--verbose" in shown


def test_help_lists_the_verbs(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert [verb for verb in VERBS if f"\n    {verb}" not in shown] == []


def test_help_version_and_mistakes_import_nothing_heavy():
    code = (
        "import sys; from optical_scale.cli.main import VERBS, main\n"
        "[main([verb, '--help']) for verb in VERBS]; main(['--version']); main(['train', 'nowhere.yaml'])\n"
        "print('heavy:', sorted({'torch', 'transformers', 'deepspeed', 'webdataset'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"optical-scale {__version__}\n"


def test_users_mistakes_are_one_line_and_status_2(capsys, tmp_path):
    assert main(["train", str(tmp_path / "nowhere.yaml")]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {tmp_path}/nowhere.yaml: does not exist")
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_verbose_adds_the_traceback(capsys, tmp_path):
    assert main(["train", "--verbose", str(tmp_path / "nowhere.yaml")]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["fly"], ["export"], ["export", "runs/x", "--nonsense"]])
def test_argparse_mistakes_are_status_2(arguments, capsys):
    assert main(arguments) == 2
    assert "usage: optical-scale" in capsys.readouterr().err


def test_overrides_may_follow_options(capsys, tmp_path):
    assert main(["train", str(tmp_path / "nowhere.yaml"), "--processes", "1", "optimization.steps=3"]) == 2
    assert "nowhere.yaml: does not exist" in capsys.readouterr().err


def test_ctrl_c_is_status_130_and_bugs_keep_their_traceback(monkeypatch, capsys):
    def interrupted(arguments: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    def bug(arguments: argparse.Namespace) -> int:
        raise ZeroDivisionError

    doctor = importlib.import_module("optical_scale.cli.doctor")
    monkeypatch.setattr(doctor, "run", interrupted)
    assert main(["doctor"]) == module.INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"
    monkeypatch.setattr(doctor, "run", bug)
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


def test_sigterm_leaves_nothing_half_written(tmp_path):
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from optical_scale.cli import main, verify\n"
        "from optical_scale.runtime.files import folder_appears\n"
        "def run(arguments):\n"
        "    with folder_appears(Path(sys.argv[1]) / 'target'):\n"
        "        print('writing', flush=True)\n"
        "        time.sleep(60)\n"
        "verify.run = run\n"
        "sys.exit(main.main(['verify', 'folder']))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    assert len(list(tmp_path.iterdir())) == 1
    process.terminate()
    assert process.wait(timeout=20) == 143
    process.stdout.close()
    assert list(tmp_path.iterdir()) == []


def test_reader_that_goes_away_is_quiet():
    command = f"{sys.executable} -m optical_scale doctor | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(module.BROKEN_PIPE)
    assert done.stderr == ""
