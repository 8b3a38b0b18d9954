import importlib
import re
import shlex
from pathlib import Path

import pytest

from optical_scale.cli import main as cli
from optical_scale.config.loading import load
from tests.architecture.config_schema import ROOTS, schema_text
from tests.architecture.tree import PACKAGE, ROOT, name_of

FOLDERS = sorted((ROOT / "configs").glob("*/*.yaml"))
PACKAGED = sorted((PACKAGE / "recipes").rglob("*.yaml"))


def root_of(path):
    """The model of a file: by folder under configs/, by the first word of the name in the package."""
    if path in FOLDERS:
        return ROOTS[path.parent.name]
    return ROOTS.get(path.stem.split("_")[0], ROOTS["distill"])


def header_of(path):
    """The comment at the head of a file."""
    text = path.read_text(encoding="utf-8")
    return text[: next(re.finditer(r"^[^#]", text, flags=re.MULTILINE)).start()]


def commands_of(header):
    """Words after `optical-scale` of every command: indented lines, also inside `for … do` and with a backslash."""
    joined = re.sub(r"\\\n#\s*", "", header)
    lines = re.findall(r"^#\s+(?:do\s+)?optical-scale (.+)$", joined, flags=re.MULTILINE)
    return [shlex.split(re.sub(r"\$\{?(\w+)\}?", r"\1", line)) for line in lines]


def test_there_are_configurations_to_check():
    assert FOLDERS
    assert {path.parent.name for path in FOLDERS} <= set(ROOTS)


@pytest.mark.parametrize("path", FOLDERS + PACKAGED, ids=name_of)
def test_every_configuration_file_is_valid(path):
    load(root_of(path), path)


@pytest.mark.parametrize("path", FOLDERS, ids=name_of)
def test_header_says_what_the_file_is_for_and_how_to_run_it(path):
    assert f"configs/{path.parent.name}/{path.name}" in header_of(path)


@pytest.mark.parametrize("path", FOLDERS, ids=name_of)
def test_commands_of_the_header_are_understood(path, capsys):
    commands = commands_of(header_of(path))
    assert commands
    for verb, *words in commands:
        assert verb in cli.VERBS
        parser = cli._parser(verb, importlib.import_module(f"optical_scale.cli.{verb}"))
        try:
            given = parser.parse_intermixed_args(words)  # as in main()
        except SystemExit:
            pytest.fail(f"optical-scale {shlex.join([verb, *words])}\n{capsys.readouterr().err}", pytrace=False)
        assert not [value for value in vars(given).values() if isinstance(value, Path) and "=" in str(value)]
        assert not [word for word in words if word.startswith("configs/") and not (ROOT / word).is_file()]


def test_commands_are_found_in_loops_and_over_several_lines():
    header = "#   for c in a b; do\n#     optical-scale cache x.yaml \\\n#         'k=[{a: $c/b}]'\n#   done\n"
    assert commands_of(header) == [["cache", "x.yaml", "k=[{a: c/b}]"]]


def test_written_schema_is_the_present_one():
    written = (ROOT / "docs" / "config.schema.json").read_text(encoding="utf-8")
    assert written == schema_text(), "the schema changed; run `make schema` and look at the difference"
