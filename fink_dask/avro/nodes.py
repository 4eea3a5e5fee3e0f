"""The places of a schema, numbered: what the two passes of the columnar decoder have in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fink_dask.avro.operations import LIMIT_BYTES
from fink_dask.avro.types import AvroType


@dataclass(frozen=True)
class Node:
    """A value's place in a schema, with the numbers of what pass 1 counts for it.

    Parameters
    ----------
    type : AvroType
        The type without its union.
    branches : int
        Branches of the union, 0 where there is none.
    null_byte : int
        The number of its null branch as a varint, -1 where there is none.
    scope : int
        What it has one entry for: 0 is each record, any other each item of an array or a map.
    slot : int
        For what has a length: the number of the sum of its bytes, or for arrays and maps the scope of their items.
    children : tuple of Node
        Fields; members of a choice; the item of an array; the key and the value of a map.
    is_member : bool
        Whether it is a member of a choice, which is null where another member is taken.
    """

    type: AvroType
    branches: int
    null_byte: int
    scope: int
    slot: int
    children: tuple[Node, ...]
    is_member: bool = False

    @property
    def nullable(self) -> bool:
        """Whether a value can be null."""
        return self.null_byte >= 0 or self.is_member


class Numbering:
    """Give every place of a schema the numbers of what pass 1 counts for it."""

    def __init__(self) -> None:
        self.scopes = 1
        self.slots = 0

    def node(self, node: AvroType, scope: int = 0, is_member: bool = False) -> Node:
        """Give numbers to a type and all that is in it."""
        kinds = [branch.kind for _, branch in node.branches]
        null_byte = 2 * kinds.index("null") if "null" in kinds else -1
        value, slot, inner = node.value, -1, scope
        if value.kind in {"array", "map"}:
            slot = inner = self.scopes
            self.scopes += 1
        elif value.kind in {"bytes", "string", "enum"}:
            slot = self.slots
            self.slots += 1
        members = (AvroType("string"), *value.children) if value.kind == "map" else value.children
        children = tuple(self.node(child, inner, node.kind == "choice") for child in members)
        return Node(value, len(kinds), null_byte, scope, slot, children, is_member)


class Constants:
    """Limits of decimals and symbols of enums, which operations refer to by number."""

    def __init__(self) -> None:
        self._limits: list[bytes] = []
        self._symbol_ends = [0]
        self._letters: list[bytes] = []
        self._first_symbol: dict[AvroType, int] = {}

    def limit(self, node: AvroType) -> int:
        """Add the greatest and, after it, the least unscaled value of a decimal; returns the number of the first."""
        greatest = 10**node.precision - 1
        self._limits += [value.to_bytes(LIMIT_BYTES, "big", signed=True) for value in (greatest, -greatest)]
        return len(self._limits) - 2

    def symbol(self, node: AvroType) -> int:
        """Add the symbols of an enum; returns the number of the first, which the others follow."""
        if node not in self._first_symbol:
            self._first_symbol[node] = len(self._symbol_ends) - 1
            for symbol in node.symbols:
                self._letters.append(symbol.encode())
                self._symbol_ends.append(self._symbol_ends[-1] + len(symbol))
        return self._first_symbol[node]

    @property
    def limits(self) -> npt.NDArray[np.uint8]:
        """The limits, for the kernels."""
        return np.frombuffer(bytearray(b"".join(self._limits)), np.uint8).reshape(-1, LIMIT_BYTES)

    @property
    def symbols(self) -> npt.NDArray[np.int64]:
        """Where each symbol begins in `letters`, and where the last one ends."""
        return np.array(self._symbol_ends, np.int64)

    @property
    def letters(self) -> npt.NDArray[np.uint8]:
        """The bytes of all symbols."""
        return np.frombuffer(bytearray(b"".join(self._letters)), np.uint8)
