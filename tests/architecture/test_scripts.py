import ast
import os
import shutil
import subprocess
import sys

import pytest

from tests.architecture.tree import ROOT, line_count, name_of, parse

PYTHON = sorted([*(ROOT / "launch").rglob("*.py"), *(ROOT / "tools").rglob("*.py")])
SHELL = sorted([*(ROOT / "launch").rglob("*.sh"), *(ROOT / "launch").rglob("*.sbatch"), ROOT / ".ci" / "run"])
MOST_LINES = 40


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_scripts_are_thin(path):
    assert line_count(path) <= MOST_LINES
    assert {
        name for name in imported(parse(path)) if name not in ("argparse", "sys") and name != "optical_scale.cli.main"
    } == set()


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_scripts_show_help(path):
    done = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


@pytest.mark.parametrize("path", SHELL, ids=name_of)
def test_shell_files_parse(path):
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shell_files_pass_shellcheck():
    done = subprocess.run(["shellcheck", "-x", *SHELL], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", [ROOT / "launch" / "train.sh", ROOT / ".ci" / "run"], ids=name_of)
def test_started_files_are_executable(path):
    assert os.access(path, os.X_OK)
