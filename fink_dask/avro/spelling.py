"""Put a schema that other programs accept into the words of the specification, where its meaning is plain.

Writers of schemas take liberties, and readers are lenient, each in its own way: names of Spark's types, a record that
is defined twice, a default of another type, a name that is found without its namespace. docs/schemas.md lists what is
put right here. Nothing that is put right changes a byte of a record or the name of a column.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from fink_dask.avro.types import PRIMITIVES
from fink_dask.errors import SchemaError

#: Levels of records, arrays, maps and wide unions. Fink's have three; code that recurses stays far from Python's limit.
MAX_DEPTH = 64
#: Characters of a name or an enum's symbol: Arrow and Parquet repeat names at every use, and a symbol at every value.
MAX_NAME_CHARS = 256
#: Characters of a type's name with its namespace, which every type that is inside takes over.
MAX_FULL_NAME_CHARS = 1024
#: Branches of a union and fields of a record that are looked at.
MAX_FIELDS = 20_000

#: What other programs call Avro's types: https://spark.apache.org/docs/latest/sql-ref-datatypes.html
OTHER_NAMES = {"integer": "int", "short": "int", "byte": "int", "bigint": "long", "binary": "bytes"}
#: What has no Avro type of its own, and how to write it.
_HINTS = {
    "timestamp": '; write {"type": "long", "logicalType": "timestamp-micros"}, or whatever the values are',
    "date": '; write {"type": "int", "logicalType": "date"}, if the values are days',
    "decimal": '; write {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}',
}
#: Names that all of Avro's readers take.
AVRO_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_DEFINED = ("record", "error", "enum", "fixed")
_SHOWN_CHARS = 60
_PATH_CHARS = 160
#: Values of defaults that are compared with their types: a few definitions can ask for 2^60 comparisons.
_MAX_COMPARED = 100_000

#: Finds the definition of a type by its full name, outside the schema; None where there is none.
Elsewhere = Callable[[str], object]
_Path = tuple[str, ...]


def show(raw: object) -> str:
    """Show a hostile value in a message: short, in ASCII and on one line; of anything but a text, its kind."""
    if isinstance(raw, str):
        return ascii(raw if len(raw) <= _SHOWN_CHARS else f"{raw[:_SHOWN_CHARS]}...")
    words = {dict: "an object", list: "a list", bool: "a boolean", int: "a number", float: "a number"}
    return words.get(type(raw), "nothing")


def refuse(path: _Path, reason: str, kind: type[SchemaError] = SchemaError) -> NoReturn:
    """Refuse a schema because of the field that a path leads to.

    Always raises SchemaError, of this kind.
    """
    dotted = ".".join(path).replace(".[]", "[]").replace(".{}", "{}")
    if len(dotted) > _PATH_CHARS:
        dotted = f"...{dotted[-_PATH_CHARS:]}"
    where = f"field {ascii(dotted)[1:-1]}" if path else "the top level"
    raise kind(f"the Avro schema can't be used, {where}: {reason}")


def hint_of(name: str) -> str:
    """Say how to write a type that only other programs know; empty where nothing is known."""
    return _HINTS.get(name.partition("(")[0], "")


def respell(document: object, elsewhere: Elsewhere | None = None) -> object:
    """Put a schema into the words of the specification.

    `document`: the schema, as it came from JSON. It is not changed.
    `elsewhere`: finds types that the schema does not define.
    Returns: the schema; equal to `document` where that takes no liberties. What can't be put right is left for whoever
    reads the types.
    Raises SchemaError if it is nested too deeply, a name is too long, or a name stands for two types.
    """
    moved: dict[str, str] = {}
    while True:
        speller = _Speller(moved, elsewhere)
        found = speller.type(document, ("", ""), (), 1)
        if speller.moved == moved:
            return found
        # A type without a namespace, which the specification has no way to name from within one, gets that. It takes
        # no third time, as all references have been seen.
        moved = speller.moved


class _Speller:
    """Writes one schema anew.

    Namespaces come in pairs, as they are in the schema and as they are written.
    """

    def __init__(self, moved: dict[str, str], elsewhere: Elsewhere | None) -> None:
        self.moved = dict(moved)
        self._elsewhere = elsewhere
        #: How each type is written, by the full name that it has in the schema.
        self._written: dict[str, str] = {}
        self._definitions: dict[str, dict[str, Any]] = {}
        #: How a type of a name is written, by what it is.
        self._shapes: dict[str, dict[str, str]] = {}
        self._by_last: dict[str, list[str]] = {}
        self._taken: dict[str, int] = {}
        self._twice: set[str] = set()
        # The objects stay alive with it, so that no other one has the identity of one of them.
        self._names: dict[int, tuple[dict[str, Any], str]] = {}
        self._compared = 0

    def type(self, raw: object, spaces: tuple[str, str], path: _Path, depth: int) -> object:
        """Write a type."""
        if depth > MAX_DEPTH:
            refuse(path, f"more than {MAX_DEPTH} levels of nesting")
        if isinstance(raw, str):
            return self._reference(raw, spaces, path, depth)
        if isinstance(raw, list) and len(raw) <= MAX_FIELDS + 1:
            return [self.type(branch, spaces, path, depth) for branch in raw]
        if isinstance(raw, dict):
            return self._object(raw, spaces, path, depth)
        return raw

    def _object(self, raw: dict[str, Any], spaces: tuple[str, str], path: _Path, depth: int) -> object:
        kind = raw.get("type")
        if isinstance(kind, (dict, list)):
            # {"type": {"type": "int"}}: not in the specification, but written by some and read by most.
            return self.type(kind, spaces, path, depth + 1)
        for outer, inner, sign in (("array", "items", "[]"), ("map", "values", "{}")):
            if kind == outer:
                there = {inner: self.type(raw[inner], spaces, (*path, sign), depth + 1)} if inner in raw else {}
                return {**raw, **there}
        if kind in _DEFINED:
            return self._definition(str(kind), raw, spaces, path, depth)
        if not isinstance(kind, str):
            return raw
        found = self._reference(kind, spaces, path, depth)
        return {**raw, "type": found} if isinstance(found, str) else found

    def _reference(self, name: str, spaces: tuple[str, str], path: _Path, depth: int) -> object:
        if name in PRIMITIVES or len(name) > MAX_FULL_NAME_CHARS:
            return name
        full = name if "." in name or not spaces[0] else f"{spaces[0]}.{name}"
        alike = self._by_last.get(name, []) if "." not in name else []
        for each in (full, name, *(alike if len(alike) == 1 else [])):
            if each in self._written:
                return self._point(each, name, spaces, path)
        if name in OTHER_NAMES:
            return OTHER_NAMES[name]
        found = None if self._elsewhere is None else self._elsewhere(full) or self._elsewhere(name)
        return name if found is None else self.type(found, ("", ""), path, depth)

    def _point(self, full: str, name: str, spaces: tuple[str, str], path: _Path) -> str:
        """Return the name by which a type that is known can be found from within a namespace."""
        if full in self._twice:
            refuse(path, f"the type {show(name)} is defined twice, and differently: rename one of them")
        written, space = self._written[full], spaces[1]
        if "." not in name and (written == f"{space}.{name}" or (not space and written == name)):
            return name
        return self._within(space, full, written)

    def _within(self, space: str, full: str, written: str) -> str:
        if "." not in written and space:
            self.moved[full] = f"{space}.{written}"
        return written

    def _definition(self, kind: str, raw: dict[str, Any], spaces: tuple[str, str], path: _Path, depth: int) -> object:
        name, given = raw.get("name"), raw.get("namespace")
        if not isinstance(name, str) or not (given is None or isinstance(given, str)):
            return raw
        space = spaces[0] if given is None else given
        if len(name) + len(space) > MAX_FULL_NAME_CHARS:
            refuse(path, f"a name of more than {MAX_FULL_NAME_CHARS:,} characters with its namespace")
        full = name if "." in name or not space else f"{space}.{name}"
        if not all(full.split(".")) or full in PRIMITIVES:
            return raw
        is_again = full in self._written
        written = self._free(self.moved.get(full) or _legal(full))
        if not is_again:
            self._written[full] = written
            self._by_last.setdefault(full.rpartition(".")[2], []).append(full)
        new = {**raw, "type": "record" if kind == "error" else kind}
        if given is None:
            new.pop("namespace", None)
        if written != full:
            new |= {"name": written, "namespace": ""}
        if not _are_names(new.get("aliases", [])):
            del new["aliases"]
        if kind in {"record", "error"}:
            inside = (full.rpartition(".")[0], written.rpartition(".")[0])
            fields = raw.get("fields")
            if isinstance(fields, list) and len(fields) <= MAX_FIELDS:
                new["fields"] = [self._field(each, inside, path, depth) for each in fields]
        elif kind == "enum" and "default" in new and new["default"] not in _list(raw.get("symbols")):
            del new["default"]
        shape = json.dumps(self._shape({**new, "name": ""}))
        known = self._shapes.setdefault(full, {})
        if shape in known:
            return self._within(spaces[1], full, known[shape])
        if is_again:
            self._twice.add(full)
        known[shape] = written
        self._definitions[written] = new
        self._names[id(new)] = (new, written)
        return new

    def _field(self, raw: object, spaces: tuple[str, str], path: _Path, depth: int) -> object:
        if not isinstance(raw, dict) or "type" not in raw:
            return raw
        name = raw.get("name")
        inner = (*path, name) if isinstance(name, str) and len(name) <= MAX_NAME_CHARS else path
        new = {**raw, "type": self.type(raw["type"], spaces, inner, depth + 1)}
        if "default" in new and not self._fits(new["default"], new["type"]):
            del new["default"]
        if not _are_names(new.get("aliases", [])):
            del new["aliases"]
        if new.get("order", "ignore") not in ("ascending", "descending", "ignore"):
            del new["order"]
        return new

    def _free(self, name: str) -> str:
        """Take a name that no other type is written with."""
        found = name
        while found in self._taken:
            self._taken[name] += 1
            found = f"{name}_{self._taken[name]}"
        self._taken[found] = 1
        return found

    def _shape(self, node: object) -> object:
        """Return what tells whether two definitions are the same: types and names of fields, no words about them."""
        if isinstance(node, list):
            return [self._shape(each) for each in node]
        if not isinstance(node, dict):
            return node
        if id(node) in self._names:
            return self._names[id(node)][1]
        kept = {key: node.get(key) for key in ("type", "logicalType", "precision", "scale", "size", "symbols")}
        for key in ("items", "values"):
            if key in node:
                kept[key] = self._shape(node[key])
        if isinstance(node.get("fields"), list):
            kept["fields"] = [
                [each.get("name"), self._shape(each.get("type"))] if isinstance(each, dict) else each
                for each in node["fields"]
            ]
        return kept

    def _fits(self, default: object, node: object) -> bool:  # noqa: PLR0911 - one for each kind
        """Tell whether a default is a value of a type, as strict libraries want it."""
        self._compared += 1
        if self._compared > _MAX_COMPARED:
            return False
        if isinstance(node, list):
            return any(self._fits(default, branch) for branch in node)
        if isinstance(node, str):
            return self._fits(default, self._definitions[node]) if node in self._definitions else _is_a(default, node)
        if not isinstance(node, dict):
            return True
        kind = node.get("type")
        if kind == "array":
            return isinstance(default, list) and all(self._fits(each, node.get("items")) for each in default)
        if kind == "map":
            return isinstance(default, dict) and all(self._fits(each, node.get("values")) for each in default.values())
        if kind == "enum":
            return default in _list(node.get("symbols"))
        if kind == "fixed":
            return isinstance(default, str)
        if kind != "record":
            return self._fits(default, kind)
        return isinstance(default, dict) and all(
            self._fits(default[each["name"]], each["type"]) if each["name"] in default else "default" in each
            for each in _list(node.get("fields"))
            if isinstance(each, dict) and isinstance(each.get("name"), str) and "type" in each
        )


def _is_a(default: object, kind: str) -> bool:
    is_number = isinstance(default, int | float) and not isinstance(default, bool)
    kinds = {
        "null": default is None,
        "boolean": isinstance(default, bool),
        "int": is_number and isinstance(default, int) and -(2**31) <= default < 2**31,
        "long": is_number and isinstance(default, int) and -(2**63) <= default < 2**63,
        "float": is_number,
        "double": is_number,
        "bytes": isinstance(default, str),
        "string": isinstance(default, str),
    }
    return kinds.get(kind, True)


def _list(raw: object) -> list[Any]:
    return raw if isinstance(raw, list) else []


def _are_names(aliases: object) -> bool:
    return isinstance(aliases, list) and all(
        isinstance(each, str) and all(map(AVRO_NAME.fullmatch, each.split("."))) for each in aliases
    )


def _legal(full: str) -> str:
    """Write a type's name so that all readers take it; no column is called after it."""
    return ".".join(part if AVRO_NAME.fullmatch(part) else _legal_part(part) for part in full.split("."))


def _legal_part(part: str) -> str:
    legal = re.sub(r"[^A-Za-z0-9_]", "_", part)
    return f"_{legal}" if legal[0].isdigit() else legal


def steps_to(names: Sequence[str], column: str) -> list[str]:
    """Tell which fields the name of a column leads through: a column may have dots in its own name."""
    return [column] if column in names else column.split(".")
