"""YAML files and dotted overrides to checked configurations, and back.

Scalars follow the core schema of YAML 1.2: `no`, `on` and `2024-01-01` are strings, `1e-4` is a number, `0o17` is
octal. Relative paths in a file are relative to the working directory of the command, not to the file.
"""

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from optical_scale.config.schema import DOTTED, NUMBER, Schema
from optical_scale.errors import ConfigError

S = TypeVar("S", bound=Schema)

_CORE_SCHEMA = (
    ("null", r"null|Null|NULL|~|", "nN~\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
)


class _Loader(yaml.SafeLoader):
    """Safe YAML with the scalars of YAML 1.2; a key may occur once in a mapping."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def construct_core_int(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node)
        return int(text, 0) if text.startswith(("0o", "0x")) else int(text)

    def construct_unique_mapping(self, node: yaml.MappingNode) -> Iterator[dict[Any, Any]]:
        first: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.MarkedYAMLError(problem="a key must be a single word", problem_mark=key_node.start_mark)
            if key in first:
                problem = f"key {key!r} is given twice, first in line {first[key]}; remove one"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            first[key] = line
        yield from self.construct_yaml_map(node)


class _Dumper(yaml.SafeDumper):
    """Quotes what either YAML 1.1 or 1.2 would take for something other than a string."""


for _name, _pattern, _initials in _CORE_SCHEMA:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})\Z"), ["" if c == "\0" else c for c in _initials]
        )
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_core_int)
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_unique_mapping)


def load(model: type[S], path: Path | None, overrides: Sequence[str] = ()) -> S:
    """Read a configuration file, apply overrides, check everything.

    Args:
        model: root schema.
        path: YAML file with one mapping; None starts from nothing.
        overrides: ``a.b.c=value`` or ``a.0.b=value``, applied in order; values are YAML, so ``a.b=null`` works.

    Returns:
        The frozen configuration.

    Raises:
        ConfigError: naming file, line, field, what was found and what was expected, for every problem at once.
    """
    source = _Source("configuration", {}, None) if path is None else _read(path, model)
    dotted = [name for name, info in model.model_fields.items() if DOTTED in info.metadata]
    changed = {path_of: text for text in overrides for path_of in [_apply(source.values, text, dotted)]}
    try:
        return model.model_validate(source.values)
    except ValidationError as error:
        problems = [_explain(model, source, changed, details) for details in error.errors(include_url=False)]
        raise ConfigError("\n".join(dict.fromkeys(problems))) from error


def dump(config: Schema) -> str:
    """The configuration with all defaults, as YAML that :func:`load` reads back to an equal one."""
    return to_yaml(config.model_dump(mode="json"))


def to_yaml(value: Any) -> str:
    """Lists, dictionaries, texts and numbers as YAML, in their order."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1_000_000)
    return text


class _Source(NamedTuple):
    """A file's values together with its syntax tree, which knows the lines."""

    name: str
    values: dict[str, Any]
    tree: yaml.Node | None


def _read(path: Path, model: type[Schema]) -> _Source:
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = "is a folder" if path.is_dir() else "does not exist" if not path.exists() else str(error.strerror)
        raise ConfigError(f"{path}: {reason}; expected a YAML file for {model.__name__}; check the path") from error
    keys = f"expected a mapping with the keys {', '.join(model.model_fields)}"
    try:
        loader = _Loader(content)
        tree = loader.get_single_node()
        values = None if tree is None else _unshared(loader.construct_document(tree))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}:{_syntax(error)}") from error
    if values is None:
        raise ConfigError(f"{path}: the file is empty; {keys}")
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: found {_show(values)}; {keys}")
    return _Source(str(path), values, tree)


def _unshared(value: Any) -> Any:
    """The same without shared parts, so that an override changes the place it names and no alias of it."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


def _syntax(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return " found an anchor that holds itself, or a nesting without end; write it out"
    if not isinstance(error, yaml.MarkedYAMLError):
        return f" {' '.join(str(error).split())}; expected YAML in UTF-8"
    line = f"{error.problem_mark.line + 1}: " if error.problem_mark else " "
    context = f"{error.context}, " if error.context else ""
    if error.context == "expected a single document in the stream":
        return f"{line}found a second document after ---; expected one; move it to a file of its own"
    return f"{line}{context}{error.problem}"


def _apply(values: dict[str, Any], override: str, dotted: Sequence[str]) -> str:
    """Set one dotted override in ``values``; returns its path. Below a field of ``dotted`` the rest is one key."""
    path, separator, text = override.partition("=")
    parts = path.strip().split(".")
    if not separator or not all(parts):
        raise ConfigError(f"override {override!r}: expected key=value, for example optimization.steps=100")
    if parts[0] in dotted and len(parts) > 1:
        parts[1:] = [".".join(parts[1:])]
    try:
        value = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"override {override!r}: the value is no YAML: {_syntax(error).strip()}") from error
    place: Any = values
    for number, part in enumerate(parts[:-1]):
        following = _descend(place, part, ".".join(parts[:number]), override)
        if following is None:
            following = {}
            place[_key(place, part)] = following
        place = following
    _descend(place, parts[-1], ".".join(parts[:-1]), override)
    place[_key(place, parts[-1])] = value
    return ".".join(parts)


def _key(place: Any, part: str) -> Any:
    return int(part) if isinstance(place, list) else part


def _descend(place: Any, part: str, where: str, override: str) -> Any:
    """What ``place`` holds under ``part``, None if nothing yet."""
    if isinstance(place, dict):
        return place.get(part)
    if not isinstance(place, list):
        raise ConfigError(f"override {override!r}: {where} is {_show(place)}, which has no {part!r} inside")
    if not (part.isdecimal() and int(part) < len(place)):
        indices = f"an index below {len(place)} or " if place else ""
        raise ConfigError(
            f"override {override!r}: {where} is a list of {len(place)}, found {part!r}; expected {indices}"
            f"the whole list as {where}=[…]"
        )
    return place[int(part)]


def _explain(model: type[Schema], source: _Source, changed: dict[str, str], details: Any) -> str:
    """One line for one pydantic error: place, field, found, expected, next step."""
    field = _locate(model, details["loc"], details["type"])
    kind, context, value, message = details["type"], details.get("ctx", {}), details["input"], str(details["msg"])
    path: tuple[int | str, ...] = field.path
    if kind.startswith("union_tag"):
        path = (*path, context["discriminator"].strip("'"))
    where = ": ".join([_place(source, changed, path), *[".".join(map(str, path))] * bool(path)])
    meaning = f" ({field.description})" if field.description else ""
    match kind:
        case "extra_forbidden":
            return f"{where}: unknown key; {_suggest(str(path[-1]), field.known)}"
        case "missing":
            return f"{where}: missing; add it{meaning}"
        case "union_tag_not_found":
            return f"{where}: missing; {_suggest('', field.tags)}"
        case "union_tag_invalid":
            return f"{where}: found {context['tag']!r}; {_suggest(context['tag'], field.tags)}"
        case "value_error":
            return f"{where}: {context['error']}"
        case "path_type":
            message = "expected a path"
    rule = re.sub(r"^Input should be ", "expected ", message)
    return f"{where}: found {_show(value)}; {rule}; correct it{meaning}"


def _place(source: _Source, changed: dict[str, str], path: Sequence[int | str]) -> str:
    """The override or the file and line that a field came from; for a missing field, the mapping it belongs in."""
    dotted = ".".join(map(str, path))
    above = [text for changed_path, text in changed.items() if f"{dotted}.".startswith(f"{changed_path}.")]
    below = [text for changed_path, text in changed.items() if dotted and changed_path.startswith(f"{dotted}.")]
    if above:
        return f"override {_cut(above[-1])!r}"
    line, node = None, source.tree
    for part in path:
        child = _child(node, part)
        if child is None:
            if below:
                return f"override {_cut(below[-1])!r}"
            break
        line, node = child
    return source.name if line is None else f"{source.name}:{line}"


def _child(node: yaml.Node | None, part: int | str) -> tuple[int, yaml.Node] | None:
    """Line and node below a node of the syntax tree."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line + 1, node.value[part]
    return None


class _Field(NamedTuple):
    """Where an error is in terms of the file, and what the schema knows about that place."""

    path: tuple[int | str, ...]
    description: str
    known: list[str]
    tags: list[str]


def _locate(model: type[Schema], location: Sequence[int | str], kind: str) -> _Field:
    """Follow a pydantic error's location, dropping the tags it adds for members of unions."""
    path: list[int | str] = []
    description, known, tags = "", list(model.model_fields), list[str]()
    annotation: Any = model
    for part in location:
        arms = _arms(annotation)
        models = [arm for arm in arms if isinstance(arm, type) and issubclass(arm, BaseModel)]
        tagged = [arm for arm in models if part in (_tag(arm), arm.__name__)]
        tagged += [arm for arm in arms if part == NUMBER and arm not in models]
        if len(arms) > 1 and tagged:
            annotation = tagged[0]
            continue
        path.append(part)
        if models:
            known = list(models[0].model_fields)
            info: FieldInfo | None = models[0].model_fields.get(str(part))
            annotation, description = (info.annotation, info.description or "") if info else (Any, "")
        else:
            inner = get_args(arms[0]) if arms else ()
            annotation = inner[-1] if inner else Any
    if kind.startswith("union_tag"):
        tags = [_tag(arm) for arm in _arms(annotation)]
    return _Field(tuple(path), " ".join(description.split()), known, tags)


def _arms(annotation: Any) -> list[Any]:
    """The alternatives of a type, without Annotated and None."""
    if get_origin(annotation) is Annotated:
        return _arms(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [arm for member in get_args(annotation) for arm in _arms(member)]
    return [] if annotation is type(None) else [annotation]


def _tag(arm: Any) -> str:
    """The value of a union member's discriminator: its first field of one literal value."""
    fields = arm.model_fields.values() if isinstance(arm, type) and issubclass(arm, BaseModel) else ()
    literals = [get_args(info.annotation) for info in fields if get_origin(info.annotation) is Literal]
    return next((str(values[0]) for values in literals if len(values) == 1), "")


def _suggest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}expected one of {', '.join(known)}"


def _show(value: Any) -> str:
    """A value as the message shows it, cut to a line."""
    if isinstance(value, dict):
        return f"a mapping with the keys {', '.join(map(str, value)) or '(none)'}"[:200]
    return _cut(json.dumps(value) if value is None or isinstance(value, bool) else repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"
