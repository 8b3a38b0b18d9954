import re

import pytest

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


def test_there_are_configurations_to_check():
    assert FOLDERS
    assert {path.parent.name for path in FOLDERS} <= set(ROOTS)


@pytest.mark.parametrize("path", FOLDERS + PACKAGED, ids=name_of)
def test_every_configuration_file_is_valid(path):
    load(root_of(path), path)


@pytest.mark.parametrize("path", FOLDERS, ids=name_of)
def test_header_says_what_the_file_is_for_and_how_to_run_it(path):
    text = path.read_text(encoding="utf-8")
    header = text[: next(re.finditer(r"^[^#]", text, flags=re.MULTILINE)).start()]
    assert f"configs/{path.parent.name}/{path.name}" in header


def test_written_schema_is_the_present_one():
    written = (ROOT / "docs" / "config.schema.json").read_text(encoding="utf-8")
    assert written == schema_text(), "the schema changed; run `make schema` and look at the difference"
