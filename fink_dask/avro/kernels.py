"""How loops are compiled, and the reads they have in common; the only importer of numba."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba.core import cgutils, types
from numba.extending import intrinsic

from fink_dask.avro.operations import LIMIT_BYTES

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

#: Files whose contents end up in compiled code.
_SOURCES = ("kernels.py", "operations.py", "pass_one.py", "pass_two.py")

_HIGH_BITS = -0x7F7F7F7F7F7F7F80
_WITHOUT_SIGN = 0x7FFFFFFFFFFFFFFF


def compiled(function: Callable[..., Any]) -> Any:
    """Let numba compile a function, once for all processes of a user.

    It releases Python's lock. It can't allocate memory either, so that it counts no references: that took longer than
    all the rest.

    Parameters
    ----------
    function : callable
        The function.

    Returns
    -------
    callable
        The same, to be compiled when it is called.
    """
    try:
        dispatcher = numba.njit(nogil=True, cache=True, _nrt=False)(function)
    except RuntimeError:
        # There is no directory that numba may write to: compile in every process rather than fail.
        return numba.njit(nogil=True, _nrt=False)(function)
    with suppress(AttributeError, OSError):
        # numba looks only at the file of the function itself to see whether its cache is out of date.
        stats = [(Path(__file__).parent / name).stat() for name in _SOURCES]
        dispatcher._cache._cache_file._source_stamp = [(stat.st_mtime, stat.st_size) for stat in stats]
    return dispatcher


def is_cached(function: Any, arguments: tuple[Any, ...]) -> bool:
    """Tell whether a call needs no compiler.

    Parameters
    ----------
    function : callable
        What `compiled` returned.
    arguments : tuple
        Arguments of the types that it will be called with.

    Returns
    -------
    bool
        Whether it is compiled in this process, or was kept on disk by another one.
    """
    signature = tuple(map(numba.typeof, arguments))
    if signature in function.overloads:
        return True
    try:
        # numba has no public API for this; should it change, a first run is announced once too often.
        key = function._cache._index_key(signature, function.targetctx.codegen())
        return key in function._cache._cache_file._load_index()
    except (AttributeError, OSError, TypeError):
        return False


def is_kept(function: Any) -> bool:
    """Tell whether other processes will find a compiled function: numba may have no place to write it to."""
    # As above, no public API; in doubt, yes.
    return type(getattr(function, "_cache", None)).__name__ != "NullCache"


@intrinsic  # type: ignore[untyped-decorator]
def _load(typing_context: Any, array: Any, at: Any, like: Any) -> Any:
    """Read an integer of the type of `like` at any byte."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer = builder.gep(data, [args[1]])
        load = builder.load(builder.bitcast(pointer, context.get_value_type(signature.return_type).as_pointer()))
        load.align = 1
        return load

    return like(array, types.int64, like), generate


@intrinsic  # type: ignore[untyped-decorator]
def _move(typing_context: Any, into: Any, start: Any, array: Any, at: Any, size: Any) -> Any:
    """Copy bytes with memcpy."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target = context.make_array(signature.args[0])(context, builder, args[0]).data
        source = context.make_array(signature.args[2])(context, builder, args[2]).data
        cgutils.raw_memcpy(builder, builder.gep(target, [args[1]]), builder.gep(source, [args[3]]), args[4], 1)
        return context.get_dummy_value()

    return types.void(into, types.int64, array, types.int64, types.int64), generate


@compiled
def load_int64(buffer: Bytes, at: int) -> Any:
    """Read eight bytes as they are."""
    # The compiler drops this line, unless numba's bounds checking is on: then it is what checks the read.
    buffer[at] | buffer[at + 7]
    return _load(buffer, at, np.int64(0))


@compiled
def load_int32(buffer: Bytes, at: int) -> Any:
    """Read four bytes as they are."""
    buffer[at] | buffer[at + 3]
    return _load(buffer, at, np.int32(0))


@compiled
def copy(into: Bytes, start: int, buffer: Bytes, at: int, size: int) -> None:
    """Copy bytes, few or many."""
    if size < 16:
        for index in range(size):
            into[start + index] = buffer[at + index]
    else:
        into[start] | into[start + size - 1] | buffer[at] | buffer[at + size - 1]
        _move(into, start, buffer, at, size)


@compiled
def read_long(buffer: Bytes, at: int, end: int) -> tuple[int, int]:
    """Read a zigzag varint of at most 64 bits; returns it and where it ends, or -1 as its end where it is none."""
    result: Any = 0
    shift = 0
    while at < end:
        byte = np.int64(buffer[at])
        at += 1
        if shift == 63 and byte > 1:
            break
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return ((result >> 1) & _WITHOUT_SIGN) ^ -(result & 1), at
        shift += 7
    return 0, -1


@compiled
def read_size(buffer: Bytes, at: int, end: int) -> tuple[int, int]:
    """Read the length of what follows; returns it and where that begins, or -1 where it does not fit."""
    size, at = read_long(buffer, at, end)
    return size, (at if at >= 0 and 0 <= size <= end - at else -1)


@compiled
def is_utf8(buffer: Bytes, at: int, end: int) -> bool:
    """Tell whether bytes are UTF-8, and soon where they are ASCII."""
    seen = np.int64(0)
    if end - at >= 8:
        for start in range(at, end - 8, 8):
            seen |= load_int64(buffer, start)
        seen = (seen | load_int64(buffer, end - 8)) & _HIGH_BITS
    else:
        for start in range(at, end):
            seen |= np.int64(buffer[start]) & 0x80
    if seen == 0:
        return True
    while at < end:
        byte = np.int64(buffer[at])
        at += 1
        if byte < 0x80:
            continue
        # What Python takes: no overlong form, no surrogate, nothing beyond U+10FFFF.
        more = 1 if byte < 0xE0 else 2 if byte < 0xF0 else 3
        if byte < 0xC2 or byte > 0xF4 or more > end - at:
            return False
        low = 0xA0 if byte == 0xE0 else 0x90 if byte == 0xF0 else 0x80
        high = 0x9F if byte == 0xED else 0x8F if byte == 0xF4 else 0xBF
        for _ in range(more):
            if buffer[at] < low or buffer[at] > high:
                return False
            low, high = 0x80, 0xBF
            at += 1
    return True


@compiled
def is_decimal(buffer: Bytes, at: int, size: int, limits: Bytes, row: int) -> Any:
    """Compare a big-endian number with the greatest (in `row`) and the least (in the next) of its digits."""
    if size == 0:
        return False
    sign = 255 if buffer[at] >= 128 else 0
    extra = size - LIMIT_BYTES
    for index in range(extra):
        if buffer[at + index] != sign:
            return False
    if extra > 0 and (buffer[at + extra] >= 128) != (sign == 255):
        return False
    for index in range(LIMIT_BYTES):
        byte = np.int64(buffer[at + extra + index]) if extra + index >= 0 else sign
        limit = np.int64(limits[row + (sign & 1), index])
        if byte != limit:
            # Two numbers of one sign compare as their bytes do.
            return byte > limit if sign else byte < limit
    return True
