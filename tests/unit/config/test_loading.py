from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import Field, PositiveInt, model_validator

from optical_scale.config.loading import dump, load
from optical_scale.config.schema import Schema
from optical_scale.errors import ConfigError


class Circle(Schema):
    shape: Literal["circle"]
    radius: float = 1.0
    """In metres."""


class Square(Schema):
    shape: Literal["square"]
    side: PositiveInt = 1


class Inner(Schema):
    width: PositiveInt = 3
    """Columns of the table."""
    depth: PositiveInt | None = None

    @model_validator(mode="after")
    def _not_deeper_than_wide(self) -> "Inner":
        if self.depth and self.depth > self.width:
            raise ValueError("depth exceeds width; lower it")
        return self


class Root(Schema):
    name: str = "x"
    any: Any = None
    path: Path = Path("a")
    shapes: list[Annotated[Circle | Square, Field(discriminator="shape")]] = []
    inner: Inner | None = None
    table: dict[str, Inner] = {}
    flag: bool = False


@pytest.fixture
def read(tmp_path):
    def read(text, *overrides, model=Root):
        path = tmp_path / "c.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load(model, path, overrides)

    return read


@pytest.fixture
def refusal(read, tmp_path):
    def refusal(text, *overrides):
        with pytest.raises(ConfigError) as caught:
            read(text, *overrides)
        return str(caught.value).replace(str(tmp_path / "c.yaml"), "c.yaml")

    return refusal


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, word) for word in ("no", "on", "off", "yes", "y", "NO", "tRUE", "12:30:00", "2024-01-01", "1_000")),
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-3.", -3.0),
        ("-.inf", float("-inf")),
        ("0o17", 15),
        ("017", 17),
        ("0x1F", 31),
        ("+12", 12),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("'1e-4'", "1e-4"),
        ("1.2.3", "1.2.3"),
        ("0b11", "0b11"),
        ("<<", "<<"),
        ("[de, no, sw]", ["de", "no", "sw"]),
    ],
)
def test_scalars_follow_yaml_1_2(read, text, value):
    found = read(f"any: {text}\n").any
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nflag: true\nname: b\n", "c.yaml:3: key 'name' is given twice, first in line 1; remove one"),
        ("table:\n  a: {width: 1,\n   width: 2}\n", "c.yaml:3: key 'width' is given twice, first in line 2"),
        ("name: a\n---\nname: b\n", "c.yaml:2: found a second document"),
        ("", "c.yaml: the file is empty; expected a mapping with the keys name, any"),
        ("# only a comment\n", "c.yaml: the file is empty"),
        ("- a\n", "c.yaml: found ['a']; expected a mapping"),
        ("name: [a\n", "c.yaml:2: while parsing a flow sequence"),
        ("name:\n\t- a\n", "c.yaml:2: while scanning"),
        ("any: !!python/object/apply:os.getcwd []\n", "c.yaml:1: could not determine a constructor"),
        ("? [a, b]\n: 1\n", "c.yaml:1: a key must be a single word"),
        (b"name: \xff\n", "expected YAML in UTF-8"),
    ],
)
def test_broken_files(refusal, text, message):
    assert message in refusal(text)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere.yaml: does not exist; expected a YAML file for Root"):
        load(Root, tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        load(Root, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("naem: a\n", "c.yaml:1: naem: unknown key; did you mean 'name'? expected one of name, any, path"),
        (
            "inner:\n  width: 0\n",
            "c.yaml:2: inner.width: found 0; expected greater than 0; correct it (Columns of the table.)",
        ),
        (
            "inner:\n  widht: 1\n",
            "c.yaml:2: inner.widht: unknown key; did you mean 'width'?",
        ),
        ("inner: {width: 1, depth: 2}\n", "c.yaml:1: inner: depth exceeds width; lower it"),
        ("table:\n  a:\n    width: wide\n", "c.yaml:3: table.a.width: found 'wide'; expected a valid integer"),
        ("name: null\n", "c.yaml:1: name: found null; expected a valid string"),
        ("path: 3\n", "c.yaml:1: path: found 3; expected a path"),
        ("shapes:\n- {}\n", "c.yaml:2: shapes.0.shape: missing; expected one of circle, square"),
        (
            "shapes:\n- shape: squar\n",
            "c.yaml:2: shapes.0.shape: found 'squar'; did you mean 'square'? expected one of circle, square",
        ),
        (
            "shapes:\n- shape: circle\n  side: 1\n",
            "c.yaml:3: shapes.0.side: unknown key; expected one of shape",
        ),
        ("shapes:\n- shape: circle\n- {shape: circle, radius: a}\n", "c.yaml:3: shapes.1.radius: found 'a'"),
    ],
)
def test_fields_that_break_a_rule(refusal, text, message):
    assert refusal(text).startswith(message)


def test_all_problems_are_told_at_once(refusal):
    assert len(refusal("naem: a\nflag: maybe\ninner: 3\n").splitlines()) == 3


def test_overrides_descend_create_and_replace(read):
    text = "shapes:\n- shape: circle\n- shape: square\ninner: null\n"
    changes = ["shapes.1.side=4", "inner.width=7", "inner.depth=null", "table.de.width=2", "name=no", "flag=true"]
    config = read(text, *changes)
    assert config.shapes[1].side == 4
    assert config.inner == Inner(width=7)
    assert config.table == {"de": Inner(width=2)}
    assert (config.name, config.flag) == ("no", True)
    assert read(text, "shapes=[]", "path=a=b").path == Path("a=b")
    assert read("name: a\n", "name=b", "name=c").name == "c"


def test_overrides_alone_make_a_configuration():
    assert load(Root, None, ["name=a"]) == Root(name="a")
    with pytest.raises(ConfigError, match="configuration: shape: missing; add it"):
        load(Circle, None)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("name", "override 'name': expected key=value"),
        ("=3", "override '=3': expected key=value"),
        ("inner..width=3", "expected key=value"),
        ("name.a=3", "name is 'x', which has no 'a' inside"),
        ("shapes.1.side=2", "shapes is a list of 1, found '1'; expected an index below 1 or the whole list"),
        ("shapes.first=2", "shapes is a list of 1, found 'first'"),
        ("name=[", "override 'name=[': the value is no YAML"),
        ("inner.width=-1", "override 'inner.width=-1': inner.width: found -1; expected greater than 0"),
        ("inner={width: a}", "override 'inner={width: a}': inner.width: found 'a'"),
        ("iner.width=1", "override 'iner.width=1': iner: unknown key; did you mean 'inner'?"),
        ("shapes.0.shape=oval", "override 'shapes.0.shape=oval': shapes.0.shape: found 'oval'"),
    ],
)
def test_overrides_that_break_a_rule(refusal, override, message):
    assert message in refusal("name: x\nshapes:\n- shape: circle\n", override)


def test_dump_is_read_back_and_means_the_same_to_yaml_1_1(read):
    words = ["no", "1e-4", "0o17", "12:30", "2024-01-01", "null", "a: b", "# x", "ünï", "true", "long " * 60]
    values = {"words": words, "numbers": [1e-7, 1e22, 3, -2.5]}
    config = Root(any=values, shapes=[Circle(shape="circle")], inner=Inner())
    text = dump(config)
    assert read(text) == config
    assert yaml.safe_load(text)["any"]["words"] == words
    assert "ünï" in text


def test_loaded_configuration_is_frozen(read):
    with pytest.raises(ValueError, match="frozen"):
        read("name: a\n").name = "b"


def test_an_override_changes_the_place_it_names_and_no_alias_of_it(read):
    config = read("table:\n  de: &wide {width: 4}\n  sw: *wide\ninner: *wide\n", "table.sw.width=9")
    assert config.table == {"de": Inner(width=4), "sw": Inner(width=9)}
    assert config.inner == Inner(width=4)
    with pytest.raises(ConfigError, match="anchor that holds itself"):
        read("any: &a [*a]\n")
