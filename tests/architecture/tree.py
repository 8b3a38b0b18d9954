"""The checkout as the tests of this folder see it."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "optical_scale"
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    """Path relative to the checkout, for messages and test ids."""
    return str(path.relative_to(ROOT))


def parse(path):
    """Syntax tree of a Python file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def line_count(path):
    """Lines of a text file."""
    return len(path.read_text(encoding="utf-8").splitlines())
