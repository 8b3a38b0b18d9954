import ast

import pytest

from tests.architecture.tree import MODULES, PACKAGE, line_count, name_of, parse

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60


def functions(tree):
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_stay_readable(path):
    assert line_count(path) <= MOST_LINES_OF_A_FILE
    lengths = {node.name: node.end_lineno - node.lineno + 1 for node in functions(parse(path))}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES_OF_A_FUNCTION} == {}


def test_every_error_class_is_raised_somewhere():
    declared = {node.name for node in parse(PACKAGE / "errors.py").body if isinstance(node, ast.ClassDef)} - {
        "OpticalScaleError"
    }
    made = {
        node.func.id
        for path in MODULES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert declared
    assert declared - made == set()
