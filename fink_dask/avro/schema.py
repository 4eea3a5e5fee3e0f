"""Read a writer schema that nobody vouches for into types, or refuse it in one line that names the field.

The rules are those of the Avro 1.12 specification, https://avro.apache.org/docs/1.12.0/specification/: a name with dots
is full, any other belongs to the namespace around it, and a type is defined once, before it is used. What other
programs accept beyond that, `fink_dask.avro.spelling` has put right before.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from fink_dask.avro.operations import BATCH_CELLS
from fink_dask.avro.spelling import (
    AVRO_NAME,
    MAX_DEPTH,
    MAX_FIELDS,
    MAX_NAME_CHARS,
    Elsewhere,
    hint_of,
    refuse,
    respell,
    show,
    steps_to,
)
from fink_dask.avro.types import LOGICAL_INTEGERS, MAX_DECIMAL256_DIGITS, PRIMITIVES, AvroType, lazy_property
from fink_dask.errors import SchemaError, UnknownTypeError, one_line

#: Bytes of a fixed: a null takes as many in Arrow, so one byte of a message could otherwise ask for gigabytes.
MAX_FIXED_BYTES = 65_536
#: Cells, which are units of eight bytes, that one value may take in Arrow whatever its own bytes are: 512 KiB. One of
#: 20,000 fields takes 20,001, LSST's alerts take 335.
MAX_VALUE_CELLS = 65_536
#: Cells that a record's items may take beyond those that its bytes allow: a short record may have a few wide nulls.
MAX_CELLS = 8192

#: What a column's name can't have: separators of paths, of directories, and of lists of columns.
_SEPARATORS = frozenset('/\\,=`"')

#: The most bytes of a schema. Those of Fink have 40 to 73 kB; a hostile message may have any size.
MAX_SCHEMA_BYTES = 4 * 1024 * 1024
#: Columns that the dataset adds to every row.
RESERVED_COLUMNS = frozenset({"kafka_partition", "kafka_offset"})


class Resolver:
    """Turn JSON into types, with the names of one schema."""

    def __init__(self) -> None:
        # None marks a record that is still being read: to meet it again is recursion.
        self._named: dict[str, AvroType | None] = {}

    def resolve(self, raw: object, namespace: str = "", path: tuple[str, ...] = (), depth: int = 1) -> AvroType:
        """Turn one type into a node, and check its bounds.

        `raw`: the type, as it came from JSON.
        `namespace`: namespace around it, empty where there is none.
        `path`: names of the fields that lead to it.
        `depth`: levels of records, arrays and maps that it is in, with its own.
        Raises SchemaError if it is not an Avro type, or one that can't be stored.
        """
        if depth > MAX_DEPTH:
            refuse(path, f"more than {MAX_DEPTH} levels of nesting")
        if isinstance(raw, str):
            node = self._reference(raw, namespace, path)
        elif isinstance(raw, list):
            node = self._union(raw, namespace, path, depth)
        elif isinstance(raw, dict):
            node = self._object(raw, namespace, path, depth)
        else:
            refuse(path, f"{show(raw)} is not an Avro type")
        # Once more, now that what a name stands for is counted as well.
        if depth + node.height - 1 > MAX_DEPTH:
            refuse(path, f"more than {MAX_DEPTH} levels of nesting")
        if node.field_count > MAX_FIELDS:
            refuse(path, f"more than {MAX_FIELDS:,} fields when every use of a named type is counted")
        if node.cells > MAX_VALUE_CELLS:
            refuse(path, f"one value takes more than {MAX_VALUE_CELLS * 8:,} bytes in Arrow, even when it is null")
        return node

    def _reference(self, name: str, namespace: str, path: tuple[str, ...]) -> AvroType:
        if name in PRIMITIVES:
            return AvroType(name)
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        if full not in self._named:
            refuse(path, f"unknown type {show(name)}{hint_of(name)}", UnknownTypeError)
        node = self._named[full]
        if node is None:
            refuse(path, f"the type {show(name)} contains itself; a recursive type has no Arrow type")
        return node

    def _union(self, raw: list[object], namespace: str, path: tuple[str, ...], depth: int) -> AvroType:
        # Counted before anything is resolved, so that a list of a million branches costs nothing.
        others = sum(not _is_null(branch) for branch in raw)
        if not raw:
            refuse(path, "a union without types")
        if len(raw) > others + 1:
            refuse(path, "a union that has null twice")
        if others > MAX_FIELDS:
            refuse(path, f"a union of more than {MAX_FIELDS:,} types")
        if others < 2:
            branches = [self.resolve(branch, namespace, path, depth) for branch in raw]
            if any(branch.kind in {"union", "choice"} for branch in branches):
                refuse(path, "a union directly in a union")
            return AvroType("union", children=tuple(branches))
        return self._choice(raw, namespace, path, depth)

    def _choice(self, raw: list[object], namespace: str, path: tuple[str, ...], depth: int) -> AvroType:
        members: dict[str, AvroType] = {}
        seen: set[str | AvroType] = set()
        for branch in raw:
            if _is_null(branch):
                continue
            inner = (*path, name := f"member{len(members)}")
            node = members[name] = self.resolve(branch, namespace, inner, depth + 1)
            if node.kind in {"union", "choice"}:
                refuse(inner, "a union directly in a union")
            # Named types differ by their names. Of the others there is one of a kind, whatever its logical type.
            what = node if node.kind in {"record", "enum", "fixed"} else node.kind
            if what in seen:
                refuse(inner, f"a union that has the same {node.kind} twice")
            seen.add(what)
        null_branch = next((number for number, branch in enumerate(raw) if _is_null(branch)), -1)
        return AvroType("choice", names=tuple(members), children=tuple(members.values()), null_branch=null_branch)

    def _object(self, raw: dict[str, object], namespace: str, path: tuple[str, ...], depth: int) -> AvroType:
        kind = raw.get("type")
        if kind == "array":
            return AvroType("array", children=(self._items(raw, "items", namespace, (*path, "[]"), depth),))
        if kind == "map":
            return AvroType("map", children=(self._items(raw, "values", namespace, (*path, "{}"), depth),))
        if kind in ("record", "enum", "fixed"):
            return self._definition(str(kind), raw, namespace, path, depth)
        if isinstance(kind, (dict, list)):
            return self.resolve(kind, namespace, path, depth + 1)
        if not isinstance(kind, str):
            refuse(path, "an object without a type" if kind is None else f"{show(kind)} is not an Avro type")
        node = self._reference(kind, namespace, path)
        return _with_logical_type(node, raw, path) if kind in PRIMITIVES else node

    def _items(self, raw: dict[str, object], key: str, namespace: str, path: tuple[str, ...], depth: int) -> AvroType:
        if key not in raw:
            refuse(path, f"the key {key!r} is missing")
        node = self.resolve(raw[key], namespace, path, depth + 1)
        if key == "items" and node.may_be_empty:
            refuse(path, "items that take no bytes: a few bytes could ask for 2^60 of them")
        return node

    def _definition(
        self, kind: str, raw: dict[str, object], namespace: str, path: tuple[str, ...], depth: int
    ) -> AvroType:
        name, space = raw.get("name"), raw.get("namespace", namespace)
        if not isinstance(name, str) or not all(map(_is_name, name.split("."))):
            refuse(path, f"{show(name)} is not an Avro name of up to {MAX_NAME_CHARS} characters")
        if not isinstance(space, str) or (space and not all(map(_is_name, space.split(".")))):
            refuse(path, f"{show(space)} is not an Avro namespace")
        full = name if "." in name or not space else f"{space}.{name}"
        if full in self._named or full in PRIMITIVES:
            refuse(path, f"the type {show(full)} is defined twice")
        self._named[full] = None
        if kind == "record":
            node = self._record(raw, full.rpartition(".")[0], path, depth)
        elif kind == "enum":
            node = AvroType("enum", symbols=_symbols(raw.get("symbols"), path))
        else:
            size = raw.get("size")
            if type(size) is not int or not 0 < size <= MAX_FIXED_BYTES:
                refuse(path, f"a fixed of a size that is not from 1 to {MAX_FIXED_BYTES:,} bytes")
            node = _with_logical_type(AvroType("fixed", size=size), raw, path)
        self._named[full] = node
        return node

    def _record(self, raw: dict[str, object], namespace: str, path: tuple[str, ...], depth: int) -> AvroType:
        fields = raw.get("fields")
        if not isinstance(fields, list):
            refuse(path, "a record without a list of fields")
        if not fields and not path:
            refuse(path, "a record without fields has no columns")
        if len(fields) > MAX_FIELDS:
            refuse(path, f"more than {MAX_FIELDS:,} fields")
        children: dict[str, AvroType] = {}
        for entry in fields:
            name = entry.get("name") if isinstance(entry, dict) else None
            if not isinstance(name, str) or not is_column_name(name):
                refuse(path, f"a field whose name, {show(name)}, can't be that of a column: rename it in the schema")
            if name in children:
                refuse((*path, name), "there are two fields of this name")
            if "type" not in entry:
                refuse((*path, name), "the field has no type")
            children[name] = self.resolve(entry["type"], namespace, (*path, name), depth + 1)
        return AvroType("record", names=tuple(children), children=tuple(children.values()))


def _symbols(raw: object, path: tuple[str, ...]) -> tuple[str, ...]:
    if not isinstance(raw, list) or not raw:
        refuse(path, "an enum without a list of symbols")
    for symbol in raw:
        if not isinstance(symbol, str) or not is_text(symbol):
            refuse(path, f"a symbol, {show(symbol)}, that is no text of up to {MAX_NAME_CHARS} characters")
    if len(set(raw)) != len(raw):
        refuse(path, "an enum with a symbol twice")
    return tuple(raw)


def _with_logical_type(node: AvroType, raw: dict[str, object], path: tuple[str, ...]) -> AvroType:
    logical = raw.get("logicalType")
    if isinstance(logical, str) and (node.kind, logical) in LOGICAL_INTEGERS:
        return AvroType(node.kind, logical)
    if logical != "decimal" or node.kind not in {"bytes", "fixed"}:
        return node
    # The specification lets a reader ignore a wrong decimal. A column of bytes where numbers are expected is a surprise
    # that comes late, so it is said here.
    precision, scale = raw.get("precision"), raw.get("scale", 0)
    if type(precision) is not int or not 0 < precision <= MAX_DECIMAL256_DIGITS:
        refuse(path, f"a decimal of a precision that is not from 1 to {MAX_DECIMAL256_DIGITS} digits")
    if type(scale) is not int or not 0 <= scale <= precision:
        refuse(path, "a decimal of a scale that is negative or greater than its precision")
    if node.kind == "fixed" and 10**precision > 2 ** (8 * node.size - 1):
        refuse(path, f"a decimal of {precision} digits does not fit in a fixed of {node.size} bytes")
    return AvroType(node.kind, "decimal", size=node.size, precision=precision, scale=scale)


def _is_null(branch: object) -> bool:
    while isinstance(branch, dict):
        branch = branch.get("type")
    return branch == "null"


def _is_name(name: str) -> bool:
    return len(name) <= MAX_NAME_CHARS and AVRO_NAME.fullmatch(name) is not None


def is_text(name: str) -> bool:
    """Tell whether a symbol or a name is short, and has something to show on its one line."""
    return 0 < len(name) <= MAX_NAME_CHARS and all(
        letter == " " or unicodedata.category(letter)[0] not in "CZ" for letter in name
    )


def is_column_name(name: str) -> bool:
    """Tell whether a column can have a name: any letters, with single dots, dashes and blanks between them."""
    parts = name.split(".")
    return is_text(name) and not _SEPARATORS & set(name) and all(part and part == part.strip() for part in parts)


@dataclass(frozen=True)
class AvroSchema:
    """A writer schema that was read, checked and resolved; `parse_schema` makes it."""

    #: The schema as compact JSON in ASCII, with keys and fields in the writer's order.
    text: str
    #: The top-level record, with every named type resolved.
    parsed: AvroType = field(compare=False, repr=False)
    #: The top level: the record, or a union of it and null, whose branch every record begins with.
    top: AvroType = field(compare=False, repr=False)

    @lazy_property
    def document(self) -> Any:
        """The schema as JSON holds it, in the words of the specification; see `fink_dask.avro.spelling`."""
        return respell(json.loads(self.text))

    @lazy_property
    def strict(self) -> str:
        """The schema as strict libraries read it: `text`, unless that takes liberties."""
        document = self.document
        return self.text if document == json.loads(self.text) else json.dumps(document, separators=(",", ":"))

    @property
    def prefix(self) -> bytes:
        """What a record begins with that is not null, where the top level is a union: the number of its branch."""
        kinds = [branch.kind for _, branch in self.top.branches]
        return bytes([2 * kinds.index("record")]) if kinds else b""

    @lazy_property
    def odd_name(self) -> str:
        """The first name of a field or a symbol that is not Avro's, shown; empty where there is none."""
        return _odd_name(self.parsed, set())

    @lazy_property
    def fingerprint(self) -> str:
        """SHA-256 of `text`, in hexadecimal."""
        return hashlib.sha256(self.text.encode("ascii")).hexdigest()

    @lazy_property
    def arrow(self) -> pa.Schema:
        """The Arrow schema of the records; `fink_dask.avro.types` has the mapping."""
        return pa.schema(self.parsed.arrow_fields)

    @property
    def max_records(self) -> int:
        """The most records to decode at once, so that even a batch of nothing but nulls takes no gigabytes in Arrow."""
        return BATCH_CELLS // (self.parsed.cells + MAX_CELLS)


def _odd_name(node: AvroType, seen: set[AvroType]) -> str:
    if node in seen:
        return ""
    seen.add(node)
    found = next((show(name) for name in (*node.names, *node.symbols) if not _is_name(name)), "")
    return found or next(filter(None, (_odd_name(child, seen) for child in node.children)), "")


def parse_schema(raw: bytes | str, elsewhere: Elsewhere | None = None) -> AvroSchema:
    """Read a writer schema, or refuse it in one line that names the field.

    `raw`: JSON, in UTF-8 where it is bytes, from a source that may be hostile.
    `elsewhere`: finds types that are defined outside the schema, which then become part of it.
    Returns: the schema, within the bounds of this module.
    Raises SchemaError if `raw` is not JSON, not a valid Avro 1.12 record schema but for what `fink_dask.avro.spelling`
    puts right, recursive, larger than the bounds, or uses what can't be stored: items that take no bytes.
    """
    try:
        document = _load(raw)
        spelled = respell(document, elsewhere)
        if elsewhere is not None and spelled != document and respell(document) != spelled:
            document = spelled
        text = json.dumps(document, separators=(",", ":"))
        if len(text) > MAX_SCHEMA_BYTES:
            raise SchemaError(f"the Avro schema has more than {MAX_SCHEMA_BYTES:,} bytes")
        top = Resolver().resolve(spelled)
        parsed = top.value
        if parsed.kind != "record":
            kind = "union" if top.kind == "choice" else parsed.kind
            refuse((), f"a topic's schema must be a record, or a union of one record and null, not {show(kind)}")
    except RecursionError:
        raise SchemaError("the Avro schema is nested too deeply to be read") from None
    for name in parsed.names:
        if name in RESERVED_COLUMNS:
            refuse((name,), "the dataset adds a column of this name itself; rename the field in the topic")
        if "." in name and _is_path(parsed, name):
            refuse((name,), "its name is also that of a field of a struct; rename it in the schema")
    return AvroSchema(text, parsed, top)


def _is_path(record: AvroType, column: str) -> bool:
    node = record
    for name in column.split("."):
        node = node.value
        if name not in node.names:
            return False
        node = node.children[node.names.index(name)]
    return True


def field_type(schema: pa.Schema, path: str) -> pa.DataType | None:
    """Find the type of a field by its dotted path.

    `path`: A column, or a field of nested structs such as ``candidate.jd``. Lists and maps are not entered.
    Returns: the type, or None where there is no such field.
    """
    first, *rest = steps_to(schema.names, path)
    index = schema.get_field_index(first)
    if index < 0:
        return None
    found = schema.field(index).type
    for name in rest:
        index = found.get_field_index(name) if pa.types.is_struct(found) else -1
        if index < 0:
            return None
        found = found.field(index).type
    return found


def _load(raw: bytes | str) -> object:
    if len(raw) > MAX_SCHEMA_BYTES:
        raise SchemaError(f"the Avro schema has {len(raw):,} bytes, more than {MAX_SCHEMA_BYTES:,}")
    try:
        text = raw.decode() if isinstance(raw, bytes) else raw
        # Windows puts a mark before it.
        document: object = json.loads(
            text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}"), object_pairs_hook=_without_duplicates
        )
    except ValueError as error:
        # UnicodeDecodeError and JSONDecodeError are ValueErrors, and so is an integer of thousands of digits.
        raise SchemaError(f"the Avro schema is not JSON in UTF-8: {one_line(error, 120)}") from error
    return document


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # Parsers disagree on which of two equal keys wins, so the same bytes would be two schemas.
    result: dict[str, object] = {}
    for key, value in pairs:
        if key in result:
            raise SchemaError(f"the Avro schema has the JSON key {show(key)} twice in one object")
        result[key] = value
    return result


def is_single_value(kind: pa.DataType) -> bool:
    """Tell whether a column of this type is a number, a text, a time or the like, and neither nested nor bytes."""
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    return not (pa.types.is_nested(kind) or pa.types.is_null(kind) or is_bytes)
