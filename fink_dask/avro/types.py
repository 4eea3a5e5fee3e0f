"""The types of an Avro schema as a tree, and the Arrow types they become.

The mapping is from the Avro 1.12 specification
(https://avro.apache.org/docs/1.12.0/specification/) to Arrow:

==========================================  ==========================================
Avro                                        Arrow
==========================================  ==========================================
``boolean``                                 ``bool``
``int``, ``long``                           ``int32``, ``int64``
``float``, ``double``                       ``float32``, ``float64``
``string``, ``bytes``                       ``string``, ``binary``
``fixed`` of n bytes                        ``fixed_size_binary(n)``
``enum``                                    ``string``
``array``, ``map``                          ``list<item>``, ``map<string, value>``
``record``                                  ``struct``; the top level is the schema
``record`` without fields                   ``bool``: true where it is there, which is all that it says
``null``                                    ``null``
``[T]``, ``[T, "null"]``, ``["null", T]``   T; nullable where Avro has a null
any other union                             ``struct<member0, member1, …>``, nullable where it has a null
``decimal`` on bytes or fixed               ``decimal128`` to 38 digits, ``decimal256`` to 76
``date`` on int                             ``date32``
``time-millis`` on int                      ``time32[ms]``
``time-micros`` on long                     ``time64[us]``
``timestamp-{millis,micros,nanos}``         ``timestamp[ms, us or ns, UTC]``
``local-timestamp-{millis,micros,nanos}``   ``timestamp[ms, us or ns]``
``uuid``, ``duration``, any other           the type beneath: the logical type is ignored
==========================================  ==========================================

A ``null`` field stays a column of Arrow's ``null``: pyarrow and polars read it back from Parquet at every level, and it
merges with whatever type the field takes later, where an invented type would not.

A union of two or more types besides null is what Spark makes of it, because Parquet has none: ``member0`` is its first
type that is not null, ``member1`` the next, and of a struct that is not null exactly one member is not. Spark's two
exceptions, ``[int, long]`` as a long and ``[float, double]`` as a double, are none here: which type was written, and
each of its bits, is kept. (``toSqlTypeHelper`` in
https://github.com/apache/spark/blob/master/connector/avro/src/main/scala/org/apache/spark/sql/avro/SchemaConverters.scala)

A map keeps the order and every entry of the bytes. Avro does not forbid a key that comes twice, and neither does Arrow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar, overload

import pyarrow as pa

Value = TypeVar("Value")

#: Arrow types of the kinds that need nothing else to be known.
PRIMITIVES = {
    "null": pa.null(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "string": pa.string(),
}

#: Arrow types of the logical types that are integers in the bytes, by kind and logical type.
LOGICAL_INTEGERS = {
    ("int", "date"): pa.date32(),
    ("int", "time-millis"): pa.time32("ms"),
    ("long", "time-micros"): pa.time64("us"),
    ("long", "timestamp-millis"): pa.timestamp("ms", tz="UTC"),
    ("long", "timestamp-micros"): pa.timestamp("us", tz="UTC"),
    ("long", "timestamp-nanos"): pa.timestamp("ns", tz="UTC"),
    ("long", "local-timestamp-millis"): pa.timestamp("ms"),
    ("long", "local-timestamp-micros"): pa.timestamp("us"),
    ("long", "local-timestamp-nanos"): pa.timestamp("ns"),
}

#: First value that is too large for a time of day, as Arrow defines ``time32`` and ``time64``.
END_OF_DAY = {"time-millis": 86_400_000, "time-micros": 86_400_000_000}

#: The most digits of a decimal that fits in 128 and in 256 bits, as Arrow defines them.
MAX_DECIMAL128_DIGITS = 38
MAX_DECIMAL256_DIGITS = 76


class lazy_property(Generic[Value]):  # noqa: N801 - it is used like a function
    """Like `functools.cached_property`, but without a lock, as that is from Python 3.12 on.

    Before, all instances of a class share the lock of an attribute: two threads that each compute one attribute, and
    need the other's for it, would wait for each other for ever. Here both may compute it, to the same result.
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        # Takes the instance and returns the value.
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        """Remember the name under which an instance keeps the value."""
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...

    def __get__(self, instance: object | None, owner: type) -> Self | Value:
        """Compute the value, and keep it where it is found without this function the next time."""
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._compute(instance)
        return value


@dataclass(frozen=True, eq=False)
class AvroType:
    """One node of a writer schema whose names are resolved.

    A named type that is used many times is one object that many parents share, so a small hostile schema can't grow
    into a large tree. What is measured below is measured once a node for the same reason.
    """

    #: A primitive type's name, or ``fixed``, ``enum``, ``array``, ``map``, ``record``, ``union``; or ``choice``, which
    #: is a union of two or more types besides null.
    kind: str
    #: ``decimal`` or a logical type of `LOGICAL_INTEGERS`; empty where there is none or it is ignored.
    logical: str = ""
    #: Bytes of a ``fixed``.
    size: int = 0
    #: precision, scale: digits of a decimal, and how many of them follow the point.
    precision: int = 0
    scale: int = 0
    #: Symbols of an ``enum``.
    symbols: tuple[str, ...] = ()
    #: Field names of a ``record`` or a ``choice``, one a child.
    names: tuple[str, ...] = ()
    #: Fields of a ``record``, branches of a ``union``, members of a ``choice``, which are its branches without null,
    #: the item of an ``array`` or the value of a ``map``.
    children: tuple[AvroType, ...] = ()
    #: Which branch of a ``choice`` is null, -1 where none is.
    null_branch: int = -1

    @lazy_property
    def branches(self) -> tuple[tuple[str, AvroType], ...]:
        """Branches of a union or a choice, by number, each with its member's name if it is one; else nothing."""
        if self.kind == "union":
            return tuple(("", child) for child in self.children)
        if self.kind != "choice":
            return ()
        members = list(zip(self.names, self.children, strict=True))
        if self.null_branch >= 0:
            members.insert(self.null_branch, ("", AvroType("null")))
        return tuple(members)

    @lazy_property
    def nullable(self) -> bool:
        """Whether a value can be null."""
        return self.kind == "null" or any(branch.kind == "null" for _, branch in self.branches)

    @lazy_property
    def value(self) -> AvroType:
        """The type without its union: the branch that is not null, or null where there is no other; else itself."""
        if self.kind != "union":
            return self
        return next((child for child in self.children if child.kind != "null"), self.children[0])

    @lazy_property
    def field_count(self) -> int:
        """Fields of all records and members of all choices, with every use of a named type counted."""
        return len(self.names) + sum(child.field_count for child in self.children)

    @lazy_property
    def height(self) -> int:
        """Levels of records, arrays, maps and choices in this type; any other union is no level of its own."""
        below = max((child.height for child in self.children), default=0)
        return below if self.kind == "union" else below + 1

    @lazy_property
    def may_be_empty(self) -> bool:
        """Whether a value may take no bytes at all."""
        return self.kind == "null" or (self.kind == "record" and all(child.may_be_empty for child in self.children))

    @lazy_property
    def cells(self) -> int:
        """Units of eight bytes that Arrow may set aside for one value, also for a null one, without its own bytes."""
        if self.kind in {"array", "map"}:
            return 1
        below = sum(child.cells for child in self.children)
        if self.kind in {"union", "null"}:
            return below
        if self.logical == "decimal":
            return 2 if self.precision <= MAX_DECIMAL128_DIGITS else 4
        longest = max((len(symbol.encode()) for symbol in self.symbols), default=0)
        return 1 + (self.size + longest + 7) // 8 + below

    @lazy_property
    def arrow(self) -> pa.DataType:
        """The Arrow type that values of this type become."""
        if self.kind == "union":
            return self.value.arrow
        if self.kind == "record" and not self.names:
            return pa.bool_()
        if self.kind in {"record", "choice"}:
            return pa.struct(self.arrow_fields)
        if self.kind == "array":
            return pa.list_(self._arrow_field("item", self.children[0]))
        if self.kind == "map":
            return pa.map_(pa.string(), self._arrow_field("value", self.children[0]))
        return self._arrow_leaf()

    @lazy_property
    def arrow_fields(self) -> list[pa.Field]:
        """The Arrow fields of a record, or the members of a choice."""
        return [self._arrow_field(name, child) for name, child in zip(self.names, self.children, strict=True)]

    def _arrow_field(self, name: str, child: AvroType) -> pa.Field:
        return pa.field(name, child.arrow, nullable=child.nullable or self.kind == "choice")

    def _arrow_leaf(self) -> pa.DataType:
        if self.logical == "decimal":
            decimal = pa.decimal128 if self.precision <= MAX_DECIMAL128_DIGITS else pa.decimal256
            return decimal(self.precision, self.scale)
        if self.kind == "fixed":
            return pa.binary(self.size)
        if self.kind == "enum":
            return pa.string()
        return LOGICAL_INTEGERS.get((self.kind, self.logical), PRIMITIVES[self.kind])
