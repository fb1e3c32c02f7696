"""YAML and JSON documents checked against a JSON Schema, with errors that name file, line and column."""

from __future__ import annotations

import difflib
import functools
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from melange.errors import InputError
from melange.files.shipped import data_path
from melange.files.text import MOST_INTEGER, read_text

Path = tuple[str | int, ...]
SCHEMAS = ("workload", "measurements", "plan")
# Far more than any file of ours holds; an alias bomb or a runaway nesting stops here.
MOST_LEVELS = 50
MOST_VALUES = 500_000
MOST_SHOWN = 60
MOST_FLOAT = 1e300  # beyond it, sums and products overflow


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A parsed file and where each of its values stands (``marks`` is empty where nobody kept that)."""

    file: str
    data: dict[str, Any]
    marks: Mapping[Path, tuple[int, int]]

    def error(self, path: Path, problem: str, fix: str | None = None) -> InputError:
        """An InputError at the value of this path, or at its nearest ancestor."""
        while path and path not in self.marks:
            path = path[:-1]
        line, column = self.marks.get(path, (None, None))
        return InputError(problem, file=self.file, line=line, column=column, fix=fix)


def read_document(file: str | os.PathLike[str], schema: str | None = None) -> Document:
    """Parse a YAML or JSON file of one mapping and, when named, check it against a published schema."""
    document = _parsed(read_text(file), os.fspath(file))
    if schema is not None:
        check_schema(document, schema)
    return document


def read_documents(file: str | os.PathLike[str]) -> tuple[Document, ...]:
    """Parse a JSON file that holds one mapping, a list of mappings, or one mapping a line (JSON Lines)."""
    name, text = os.fspath(file), read_text(file)
    lines = [(number, line) for number, line in enumerate(text.splitlines()) if line.strip()]
    if len(lines) > 1 and all(line.strip().startswith("{") and line.strip().endswith("}") for _, line in lines):
        return tuple(_parsed(line, name, number) for number, line in lines)
    if not text.lstrip().startswith("["):
        return (_parsed(text, name),)
    node = _node(text, name, 0)
    return tuple(_document(item, name, 0) for item in node.value)


def _parsed(text: str, name: str, skipped_lines: int = 0) -> Document:
    return _document(_node(text, name, skipped_lines), name, skipped_lines)


def _node(text: str, name: str, skipped_lines: int) -> Any:
    if text.lstrip()[:1] in ("{", "["):
        text = text.replace("\t", " ")  # JSON may indent with tabs, which YAML forbids; JSON strings hold none
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    kind = "JSON" if name.endswith((".json", ".jsonl")) else "YAML"
    try:
        _check_depth(text, loader, name, skipped_lines)
        return yaml.compose(text, loader)
    except yaml.reader.ReaderError as error:
        before = text[: max(0, text.find(chr(int(error.character))))]
        raise InputError(
            f"not valid {kind}: control character #x{int(error.character):02x}", file=name,
            line=before.count("\n") + 1 + skipped_lines, column=len(before) - before.rfind("\n"), fix="remove it",
        ) from error  # fmt: skip
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line, column = (mark.line + 1 + skipped_lines, mark.column + 1) if mark else (None, None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"not valid {kind}: {problem}", file=name, line=line, column=column) from error


def _check_depth(text: str, loader: Any, name: str, skipped_lines: int) -> None:
    """Refuse nesting before the parser's own recursion would end the process."""
    level = values = 0
    for event in yaml.parse(text, loader):
        values += isinstance(event, yaml.ScalarEvent | yaml.AliasEvent)
        if values > MOST_VALUES:
            raise InputError(f"it holds more than {MOST_VALUES} values", file=name, fix="see 'melange schema'")
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > MOST_LEVELS:
            mark: Any = event.start_mark
            raise InputError(
                f"nested more than {MOST_LEVELS} levels deep", file=name, line=mark.line + 1 + skipped_lines,
                column=mark.column + 1, fix="see 'melange schema'",
            )  # fmt: skip


def _document(node: Any, name: str, skipped_lines: int) -> Document:
    if not isinstance(node, yaml.MappingNode):
        raise InputError("it holds no mapping of keys", file=name, line=1, column=1, fix="see 'melange schema'")
    marks: dict[Path, tuple[int, int]] = {}
    data = _value(node, (), marks, name)
    if skipped_lines:
        marks = {path: (line + skipped_lines, column) for path, (line, column) in marks.items()}
    return Document(file=name, data=data, marks=marks)


def _value(node: yaml.Node, path: Path, marks: dict[Path, tuple[int, int]], file: str) -> Any:
    line, column = node.start_mark.line + 1, node.start_mark.column + 1
    marks[path] = (line, column)
    if len(path) > MOST_LEVELS or len(marks) > MOST_VALUES:
        raise InputError("an alias (*name) makes it endless", file=file, line=line, column=column, fix="write it out")
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            mark = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            if not isinstance(key_node, yaml.ScalarNode):
                raise InputError("a key is a list or a mapping", file=file, line=mark[0], column=mark[1], fix="name it")
            key = str(key_node.value)
            if key in result:
                raise InputError(
                    f"key {key!r} occurs twice", file=file, line=mark[0], column=mark[1], fix="keep one of them"
                )
            result[key] = _value(value_node, (*path, key), marks, file)
            marks[(*path, key, "#key")] = mark
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, i), marks, file) for i, item in enumerate(node.value)]
    return _scalar(node, path, marks, file)


def _scalar(node: Any, path: Path, marks: Mapping[Path, tuple[int, int]], file: str) -> Any:
    line, column = marks[path]
    if node.tag == "tag:yaml.org,2002:timestamp":
        return node.value
    try:
        value = yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(
            f"cannot read {_shown(node.value)}",
            file=file,
            line=line,
            column=column,
            fix="see 'melange schema'",
        ) from error
    if isinstance(value, str) and path and _looks_like_number(value) and not node.style:
        value = float(value)
    elif isinstance(value, bytes) or (isinstance(value, int | float) and _SURPRISING.match(node.value)):
        value = node.value
    if isinstance(value, float) and not math.isfinite(value):
        shown = "NaN" if math.isnan(value) else "infinite"
        raise InputError(f"the value is {shown}", file=file, line=line, column=column, fix="give a finite number")
    if isinstance(value, int | float) and abs(value) > (MOST_FLOAT if isinstance(value, float) else MOST_INTEGER):
        fix = "give a number that is meant"
        raise InputError(
            f"the value {_cut(node.value)} is out of all range", file=file, line=line, column=column, fix=fix
        )
    return value


# YAML 1.1 reads 1:30 as 90 and 010 as 8, which nobody means: they stay text.
_SURPRISING = re.compile(r"[-+]?(.*:|0[0-9_])")


def _looks_like_number(text: str) -> bool:
    """YAML 1.1 reads 1e3 as text; people and JSON mean a number."""
    if not any(c.isdigit() for c in text) or text.lower().strip("+-") in ("nan", "inf", "infinity"):
        return False
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


@functools.cache
def load_schema(name: str) -> dict[str, Any]:
    """A published JSON Schema (draft 2020-12) by name: workload, measurements or plan."""
    if name not in SCHEMAS:
        raise InputError(f"unknown schema {name!r}", fix=f"use one of {', '.join(SCHEMAS)}")
    path = data_path(f"profiles/schemas/{name}.schema.json")
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def check_schema(document: Document, schema: str | dict[str, Any], *, see: str = "see 'melange schema'") -> None:
    """Raise the first violation of a schema, or of a published one by name, as an InputError at its place.

    An unknown key gets a "did you mean"; ``see`` is the advice where there is no better one.
    """
    import jsonschema

    validator = jsonschema.Draft202012Validator(load_schema(schema) if isinstance(schema, str) else schema)
    errors = sorted(validator.iter_errors(document.data), key=lambda e: (len(e.absolute_path), str(e.absolute_path)))
    if not errors:
        return
    error = errors[0]
    while error.context:
        error = min(error.context, key=lambda e: -len(e.absolute_path))
    raise _schema_error(document, error, see)


def _schema_error(document: Document, error: Any, see: str) -> InputError:
    path: Path = tuple(error.absolute_path)
    where = ".".join(str(part) for part in path) or "the document"
    if error.validator == "additionalProperties":
        known, patterns = list(error.schema.get("properties", {})), error.schema.get("patternProperties", {})
        unknown = next(
            key for key in error.instance if key not in known and not any(re.search(p, key) for p in patterns)
        )
        known += [pattern["title"] for pattern in patterns.values() if "title" in pattern]
        near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.5)
        fix = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return document.error((*path, unknown, "#key"), f"unknown key {unknown!r} in {where}", fix)
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        return document.error(path, f"{where} lacks the key {missing!r}", see)
    if error.validator == "type":
        wanted = error.validator_value
        names = " or ".join(_TYPES[name] for name in ([wanted] if isinstance(wanted, str) else wanted))
        return document.error(path, f"{where} is {_shown(error.instance)}, not {names}", see)
    if error.validator == "enum":
        near = difflib.get_close_matches(str(error.instance), [str(v) for v in error.validator_value], n=1)
        options = ", ".join(str(v) for v in error.validator_value)
        fix = f"did you mean {near[0]!r}?" if near else f"use one of {options}"
        return document.error(path, f"{where} is {_shown(error.instance)}", fix)
    bounds = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    if error.validator in bounds:
        return document.error(
            path, f"{where} is {error.instance}", f"give a value {bounds[error.validator]} {error.validator_value}"
        )
    if error.validator in ("minItems", "minProperties"):
        held = f"has {len(error.instance)}" if error.instance else "is empty"
        return document.error(path, f"{where} {held}", f"give at least {error.validator_value} of them")
    return document.error(path, f"{where}: {error.message}", see)


_TYPES = {
    "array": "a list", "object": "a mapping", "string": "a text", "number": "a number",
    "integer": "a whole number", "boolean": "true or false", "null": "empty",
}  # fmt: skip


def _cut(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + "..."


def _shown(value: object) -> str:
    if isinstance(value, str):
        return f"the text {_cut(value)!r}"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence):
        return "a list"
    return "empty" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
