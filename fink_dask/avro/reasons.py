"""Walk the bytes of a record and say, in words, what is wrong with them.

fastavro reads more than Avro allows: a varint of twenty bytes, an ``int`` of 64 bits, branch -1 of a union, symbol -1
of an enum, a boolean of 2, a block of -2^63 items. All of them yield a value, and a wrong one where bytes are damaged
or belong to another schema. So every record is walked first, by the rules of the Avro 1.12 specification
(https://avro.apache.org/docs/1.12.0/specification/#data-serialization-and-deserialization), and only one that ends
where its bytes end, with every value inside the range of its Arrow type, is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fink_dask.avro.operations import allowed_cells
from fink_dask.avro.schema import MAX_CELLS
from fink_dask.avro.types import END_OF_DAY, AvroType

#: Walks one value: takes the record's bytes, where it starts and how far the record may still expand; returns its end.
_Step = Callable[[bytes, int, list[int]], int]

_WIDTHS = {"null": 0, "float": 4, "double": 8}
_PATH_CHARS = 120


class RecordError(ValueError):
    """A record's bytes are not what its schema says; the message is the reason."""


def make_walk(record: AvroType) -> Callable[[bytes], None]:
    """Compile a schema into a function that walks a record.

    Returns: takes the bytes of a record; returns nothing where they are sound, and raises `RecordError` otherwise. Its
    time and memory are bounded by the number of bytes, whatever they say.
    """
    root = _step(record, "")

    def walk(data: bytes) -> None:
        if not data and not record.may_be_empty:
            raise RecordError("the value is empty")
        try:
            end = root(data, 0, [MAX_CELLS + allowed_cells(len(data))])
        except IndexError:
            end = len(data) + 1
        if end > len(data):
            raise RecordError(f"the record does not end within its {len(data):,} bytes")
        if end < len(data):
            raise RecordError(f"{len(data) - end:,} bytes follow the end of the record")

    return walk


def compile_split(record: AvroType) -> Callable[[bytes], Iterator[bytes]]:
    """Compile a schema into a function that separates records that lie one after another.

    Returns: takes the bytes of sound records, and yields each; raises `RecordError` where there is none. Records of no
    bytes can't be told apart.
    """
    root = _step(record, "")

    def split(data: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(data):
            try:
                end = root(data, at, [MAX_CELLS + allowed_cells(len(data) - at)])
            except IndexError:
                end = len(data) + 1
            if not at < end <= len(data):
                raise RecordError(f"no record begins at byte {at:,} of {len(data):,}")
            yield data[at:end]
            at = end

    return split


def body_of(value: bytes, prefix: bytes) -> bytes:
    """Return the record's own bytes, where the top level of a schema is a union; see `AvroSchema.prefix`.

    Raises RecordError if it is not the record that they begin with.
    """
    if prefix and not value.startswith(prefix):
        raise RecordError("the value is null, or not of the schema's union" if value else "the value is empty")
    return value[len(prefix) :]


def read_long(data: bytes, at: int) -> tuple[int, int]:
    """Read a number; return where it ends as well."""
    result = shift = 0
    while True:
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise RecordError("a number of more than ten bytes")
    if result >> 64:
        raise RecordError("a number of more than 64 bits")
    return (result >> 1) ^ -(result & 1), at


def read_span(data: bytes, at: int, path: str) -> tuple[int, int]:
    """Read a length; return where that many bytes begin and end."""
    size, at = read_long(data, at)
    if not 0 <= size <= len(data) - at:
        raise RecordError(f"a length of {size:,} with {len(data) - at:,} bytes left, in {path}")
    return at, at + size


def _step(node: AvroType, path: str) -> _Step:
    if node.logical == "decimal":
        return _decimal_step(node, path)
    return _STEPS[node.kind](node, path[-_PATH_CHARS:])


def _record_step(node: AvroType, path: str) -> _Step:
    prefix = f"{path}." if path else ""
    steps = tuple(_step(child, prefix + name) for name, child in zip(node.names, node.children, strict=True))

    def step(data: bytes, at: int, budget: list[int]) -> int:
        for each in steps:
            at = each(data, at, budget)
        return at

    return step


def _union_step(node: AvroType, path: str) -> _Step:
    steps = tuple(_step(branch, f"{path}.{name}" if name else path) for name, branch in node.branches)
    # The branch is a zigzag varint: 0 is one byte of 0, 1 is one byte of 2, and 63 the last of one byte.
    by_byte = {2 * branch: step for branch, step in enumerate(steps[:64])}

    def step(data: bytes, at: int, budget: list[int]) -> int:
        known = by_byte.get(data[at])
        if known is not None:
            return known(data, at + 1, budget)
        branch, at = read_long(data, at)
        if not 0 <= branch < len(steps):
            raise RecordError(f"branch {branch} of a union of {len(steps)}, in {path}")
        return steps[branch](data, at, budget)

    return step


def _blocks_step(node: AvroType, path: str) -> _Step:
    child = node.children[0]
    item = _step(child, f"{path}[]" if node.kind == "array" else f"{path}{{}}")
    key = _string_step(node, f"{path}, a key") if node.kind == "map" else None
    cells = child.cells

    def step(data: bytes, at: int, budget: list[int]) -> int:
        while True:
            count, at = read_long(data, at)
            if count == 0:
                return at
            end = None
            if count < 0:
                # A negative count is followed by the size of the block in bytes.
                count = -count
                _, end = read_span(data, at, path)
                at = read_long(data, at)[1]
            # An item takes a byte at least, so this bounds the loop.
            if count > len(data) - at:
                raise RecordError(f"a block of {count:,} items with {len(data) - at:,} bytes left, in {path}")
            budget[0] -= count * cells
            if budget[0] < 0:
                limit = 8 * (MAX_CELLS + allowed_cells(len(data)))
                raise RecordError(f"the record expands to more than {limit:,} bytes in Arrow, in {path}")
            for _ in range(count):
                if key is not None:
                    at = key(data, at, budget)
                at = item(data, at, budget)
            if end is not None and at != end:
                raise RecordError(f"a block that does not have the size it says, in {path}")

    return step


def _integer_step(node: AvroType, path: str) -> _Step:
    low, high, what = -(2**63), 2**63, "a long"
    if node.kind == "enum":
        low, high, what = 0, len(node.symbols), f"a symbol of an enum of {len(node.symbols)}"
    elif node.logical in END_OF_DAY:
        low, high, what = 0, END_OF_DAY[node.logical], "a time of day"
    elif node.kind == "int":
        low, high, what = -(2**31), 2**31, "an int of 32 bits"
    # One byte of a varint is -64 to 63: the range needs a look only where it is narrower than that.
    one_byte = low <= -64 and high > 63

    def step(data: bytes, at: int, budget: list[int]) -> int:
        if one_byte and data[at] < 0x80:
            return at + 1
        value, at = read_long(data, at)
        if not low <= value < high:
            raise RecordError(f"{value} is not {what}, in {path}")
        return at

    return step


def _string_step(node: AvroType, path: str) -> _Step:
    def step(data: bytes, at: int, budget: list[int]) -> int:
        start, end = read_span(data, at, path)
        text = data[start:end]
        if not text.isascii():
            try:
                text.decode("utf-8")
            except UnicodeDecodeError as error:
                raise RecordError(f"invalid UTF-8 at byte {error.start:,} of a string, in {path}") from None
        return end

    return step


def _bytes_step(node: AvroType, path: str) -> _Step:
    def step(data: bytes, at: int, budget: list[int]) -> int:
        return read_span(data, at, path)[1]

    return step


def _boolean_step(node: AvroType, path: str) -> _Step:
    def step(data: bytes, at: int, budget: list[int]) -> int:
        if data[at] > 1:
            raise RecordError(f"a boolean of {data[at]}, in {path}")
        return at + 1

    return step


def _decimal_step(node: AvroType, path: str) -> _Step:
    limit = 10**node.precision

    def step(data: bytes, at: int, budget: list[int]) -> int:
        start, end = (at, at + node.size) if node.size else read_span(data, at, path)
        unscaled = data[start:end]
        if not unscaled:
            raise RecordError(f"a decimal of no bytes, in {path}")
        if not -limit < int.from_bytes(unscaled, "big", signed=True) < limit:
            raise RecordError(f"a decimal of more than {node.precision} digits, in {path}")
        return end

    return step


def _fixed_width_step(node: AvroType, path: str) -> _Step:
    width = _WIDTHS.get(node.kind, node.size)
    # A place past the end is noticed where the next byte is read, or by the last check of the record.
    return lambda data, at, budget: at + width


_STEPS: dict[str, Callable[[AvroType, str], _Step]] = {
    "null": _fixed_width_step,
    "boolean": _boolean_step,
    "int": _integer_step,
    "long": _integer_step,
    "float": _fixed_width_step,
    "double": _fixed_width_step,
    "bytes": _bytes_step,
    "string": _string_step,
    "fixed": _fixed_width_step,
    "enum": _integer_step,
    "array": _blocks_step,
    "map": _blocks_step,
    "record": _record_step,
    "union": _union_step,
    "choice": _union_step,
}
