"""How loops are compiled, once for all processes of a user, and the reads and writes of memory that numba has not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, typeof_impl

try:
    from numba.core.options import DefaultOptions
except ImportError:  # numba does not promise it: then it is told nothing but what it promises
    DefaultOptions = None
#: Files whose contents end up in compiled code.
_SOURCES = (
    "compiling.py",
    "avro/kernels.py",
    "avro/appending.py",
    "avro/operations.py",
    "kafka/copying.py",
    "kafka/records.py",
)
#: Whether numba checks the bounds of arrays; then this module checks those of columns, which numba does not know.
_CHECKED = bool(numba.config.BOUNDSCHECK)


def compiled(function: Callable[..., Any], **options: bool) -> Any:
    """Let numba compile a function, once for all processes of a user.

    It releases Python's lock. It can't allocate memory either, so that it counts no references: that took longer than
    all the rest.

    Parameters
    ----------
    function : callable
        The function.
    **options : bool
        Further options of numba.

    Returns
    -------
    callable
        The same, to be compiled when it is called.
    """
    # Whoever debugs a program of his own with NUMBA_DISABLE_JIT does not mean these: in Python they take hours.
    before, numba.config.DISABLE_JIT = numba.config.DISABLE_JIT, 0
    # numba promises none of these: without them the loops are slower, and take longer to compile.
    options = {"_nrt": False, "no_cfunc_wrapper": True, "forceinline": False} | options
    options = {name: value for name, value in options.items() if hasattr(DefaultOptions, name)}
    try:
        dispatcher = numba.njit(nogil=True, cache=True, **options)(function)
    except RuntimeError:
        # There is no directory that numba may write to: compile in every process rather than fail.
        return numba.njit(nogil=True, **options)(function)
    finally:
        numba.config.DISABLE_JIT = before
    with suppress(AttributeError, OSError):
        # numba looks only at the file of the function itself to see whether its cache is out of date.
        stats = [(Path(__file__).parent / name).stat() for name in _SOURCES]
        dispatcher._cache._cache_file._source_stamp = [(stat.st_mtime, stat.st_size) for stat in stats]
    with suppress(AttributeError):
        dispatcher._cache.load_overload = _without_compiler(dispatcher._cache)
    # There may be extensions of numba, for types that are not used here. To look for them, it reads what all installed
    # packages say of themselves, which takes half as long as loading what is compiled.
    dispatcher._compilation_chain_init_hook = _nothing
    return dispatcher


def _nothing() -> None:
    """Do what there is to do before a function is compiled."""


def _without_compiler(cache: Any) -> Callable[[Any, Any], Any]:
    """Make what finds compiled code on disk, and leaves out all that numba's compiler is told before, as numba does.

    That takes ten times as long as the rest, and what is compiled needs none of it; a compiler that runs asks for it.
    """
    load, guard, promised = cache._load_overload, cache._guard_against_spurious_io_errors, cache.load_overload

    def load_overload(*asked: Any) -> Any:
        try:
            with guard():
                return load(*asked)
        except (AttributeError, TypeError):  # numba takes something else there
            return promised(*asked)
        return None  # another process writes it just now

    return load_overload


class _Inner:
    """A function that only others call that numba compiles: it is nothing to numba before it compiles one of these.

    Where they are found compiled, as nearly always, that saves as long as it takes to load them.
    """

    def __init__(self, function: Callable[..., Any], **options: bool) -> None:
        self.function, self._options = function, options

    @cached_property
    def compiled(self) -> Any:
        return compiled(self.function, no_cpython_wrapper=True, **self._options)


@typeof_impl.register(_Inner)  # type: ignore[untyped-decorator]
def _typeof(value: _Inner, context: Any) -> Any:
    return typeof_impl(value.compiled, context)


def inner(function: Callable[..., Any]) -> Any:
    """Let numba compile a function that only others call that it compiles."""
    return _Inner(function)


def inlined(function: Callable[..., Any]) -> Any:
    """Let numba compile a function as a part of each that calls it."""
    return _Inner(function, forceinline=True)


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


def _check(context: Any, builder: Any, begin: Any, size: Any, room: Any) -> None:
    """Let a function raise where bytes are not within the room there is, if numba checks bounds at all."""
    if _CHECKED:
        bad = builder.or_(
            builder.icmp_signed("<", begin, begin.type(0)), builder.icmp_signed(">", builder.add(begin, size), room)
        )
        with builder.if_then(builder.or_(bad, builder.icmp_signed("<", size, size.type(0))), likely=False):
            context.call_conv.return_user_exc(builder, IndexError, ("bytes that are not there",))


def _extended(builder: Any, pointer: Any, kind: Any, is_signed: bool) -> Any:
    """Read an integer of a kind at any byte, as one of 64 bits."""
    load = builder.load(builder.bitcast(pointer, kind.as_pointer()))
    load.align = 1
    return (builder.sext if is_signed else builder.zext)(load, cgutils.intp_t)


def _loads(kind: Any, is_signed: bool = True) -> Any:
    """Make what reads an integer of a kind in an array, `at` its items on; numba would look for negative numbers."""

    @intrinsic  # type: ignore[untyped-decorator]
    def load(typing_context: Any, array: Any, at: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            made = context.make_array(signature.args[0])(context, builder, args[0])
            items = cgutils.intp_t(kind.width // array.dtype.bitwidth)
            _check(context, builder, args[1], items, builder.extract_value(made.shape, 0))
            return _extended(builder, builder.gep(made.data, [args[1]]), kind, is_signed)

        return types.int64(array, types.int64), generate

    return load


def _peeks(kind: Any, is_signed: bool = True) -> Any:
    """Make what reads an integer of a kind at an address."""

    @intrinsic  # type: ignore[untyped-decorator]
    def peek(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _extended(builder, builder.inttoptr(args[0], cgutils.voidptr_t), kind, is_signed)

        return types.int64(types.int64), generate

    return peek


def _pokes(kind: Any) -> Any:
    """Make what writes an integer of a kind at an address."""

    @intrinsic  # type: ignore[untyped-decorator]
    def poke(typing_context: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            store = builder.store(builder.trunc(args[1], kind), builder.inttoptr(args[0], kind.as_pointer()))
            store.align = 1
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    return poke


load_byte, peek_byte, poke_byte = _loads(cgutils.int8_t, False), _peeks(cgutils.int8_t, False), _pokes(cgutils.int8_t)
load_int32, peek_int32, poke_int32 = _loads(cgutils.int32_t), _peeks(cgutils.int32_t), _pokes(cgutils.int32_t)
load_int64, peek_int64, poke_int64 = _loads(cgutils.intp_t), _peeks(cgutils.intp_t), _pokes(cgutils.intp_t)


def places(numbers: int, sizes: int) -> Any:
    """Make what returns the address of some bytes in a part of a column.

    Parameters
    ----------
    numbers : int
        How many a column has in the table that is asked: the address of each part, and its bytes.
    sizes : int
        Which of these are the first part's bytes.

    Returns
    -------
    intrinsic
        Takes the table, a column, a part, and where the bytes begin in it and how many they are.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def place(typing_context: Any, table: Any, column: Any, part: Any, at: Any, size: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data = context.make_array(signature.args[0])(context, builder, args[0]).data
            number = builder.add(builder.mul(args[1], args[1].type(numbers)), args[2])
            room = builder.load(builder.gep(data, [builder.add(number, number.type(sizes))])) if _CHECKED else None
            _check(context, builder, args[3], args[4], room)
            return builder.add(builder.load(builder.gep(data, [number])), args[3])

        return types.int64(table, *4 * (types.int64,)), generate

    return place


def _calls(arguments: int, returns: bool = True) -> Any:
    """Make what calls a function of C by its address, with so many arguments: pointers, and integers of any width."""
    kinds = arguments * (types.int64,)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address, *others = args
        result = cgutils.intp_t if returns else ir.VoidType()
        function = ir.FunctionType(result, [cgutils.intp_t] * arguments).as_pointer()
        called = builder.call(builder.inttoptr(address, function), others)
        return called if returns else context.get_dummy_value()

    result = types.int64 if returns else types.void
    if arguments == 1:

        @intrinsic  # type: ignore[untyped-decorator]
        def call(typing_context: Any, address: Any, first: Any) -> Any:
            return result(types.int64, *kinds), generate

    else:

        @intrinsic  # type: ignore[untyped-decorator]
        def call(typing_context: Any, address: Any, first: Any, second: Any) -> Any:
            return result(types.int64, *kinds), generate

    return call


#: Call a function of C by its address: with one pointer, with a pointer and a number or another pointer, and one that
#: returns nothing.
call_with_one, call_with_two, call_for_nothing = _calls(1), _calls(2), _calls(1, returns=False)


@intrinsic  # type: ignore[untyped-decorator]
def move(typing_context: Any, into: Any, address: Any, size: Any) -> Any:
    """Copy bytes from one address to another."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = cgutils.int8_t.as_pointer()
        cgutils.raw_memcpy(builder, builder.inttoptr(args[0], byte), builder.inttoptr(args[1], byte), args[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def ones(typing_context: Any, bits: Any) -> Any:
    """Count the bits that are 1."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def span(typing_context: Any, array: Any, at: Any, size: Any) -> Any:
    """Return the address of some bytes in an array of bytes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        made = context.make_array(signature.args[0])(context, builder, args[0])
        _check(context, builder, args[1], args[2], builder.extract_value(made.shape, 0))
        return builder.ptrtoint(builder.gep(made.data, [args[1]]), cgutils.intp_t)

    return types.int64(array, types.int64, types.int64), generate
