"""The codes in the table of operations, which the compiler of a schema writes and the decoder's loop reads.

An operation is a row: what it does, how often it does it for neighbouring columns, the byte of its union's branch that
is not null (`NO_UNION` where there is none) and of the null one (`NEVER` where there is none), its first column (-1
where nothing is written), where a null, an empty array or a further item leads, and two numbers more:

==========================================  ==================================================================
`RECORD`, `CHOICE`                          A, B: which columns a null leaves empty, by the table of these
`BLOCKS`                                    A: the scope of the items
`NEXT`                                      A: the scope of the items; B: what one may take of the budget
`INT`, `LONG`, `SKIP_NUMBER`                A, B: the least and the greatest value
`SYMBOL`                                    A: the number of the first symbol; B: how many there are
`TEXT`, `SKIP_TEXT`                         A: whether it has to be UTF-8
`DECIMAL`                                   A: its limits; B: bytes of a fixed
`FIXED`, `SKIP_FIXED`                       A: bytes
==========================================  ==================================================================

A `CHOICE` has the number of its branches where others have a byte, and is followed by a `GOTO` for each, which has the
column of the member and leads to where the member is read; what ends there is a `GOTO` that leads behind all members.
"""

from __future__ import annotations

#: Columns of a table of operations.
CODE, REPEAT, VALUE_BYTE, NULL_BYTE, COLUMN, JUMP, A, B = range(8)
#: Operations that control the flow, those that read one value, and those that only judge one.
STOP, RECORD, BLOCKS, NEXT, CHOICE, GOTO = range(6)
NULL, DOUBLE, FLOAT, TEXT, INT, LONG, BOOLEAN, SYMBOL, FIXED, DECIMAL = range(6, 16)
SKIP_FIXED, SKIP_NUMBER, SKIP_TEXT, SKIP_BOOLEAN, SKIP_DECIMAL = range(16, 21)
#: What stands for the byte of a branch where there is no union, and where the union has no such branch.
NO_UNION, NEVER = -1, -2
#: The parts of a column: its validity, values of a fixed width, 32-bit offsets, bytes of any length.
VALID, DATA, ENDS, TEXTS = range(4)
#: Numbers of a column in a table of places: the address of each part and, from `SIZES` on, the bytes of each.
PLACES, SIZES = 8, 4
#: What a column holds, where it is not values of so many bytes: nothing but its validity, bits, the offsets of items,
#: bytes of any length; and what becomes such bytes only where it is taken: symbols, and pieces of the batch, of which
#: it has the place and the length.
NOTHING, BITS, ITEMS, BYTES, SYMBOLS, PIECES = 0, -1, -2, -3, -4, -5
#: Bytes beyond a part of a column that may be read and written with it, and those that its address is a multiple of.
SLACK, ALIGNMENT = 16, 64
#: Bytes of a decimal's limit.
LIMIT_BYTES = 32
#: Levels of arrays and maps inside each other; no schema has more.
MAX_LOOPS = 64
#: Units of eight bytes that the rows of a batch, whatever they hold, and as many again that its items may take.
BATCH_CELLS = 2**26


def allowed_cells(size: int) -> int:
    """Return how many units of eight bytes the items of a record may take in Arrow, without their own bytes.

    A field takes a byte of the record at least, also a null, and one unit, unless it is a symbol, a decimal or a fixed:
    alerts need one unit a byte, and a batch of 8 MiB never takes more than `BATCH_CELLS`.

    Returns: eight for each byte, but no more than one for each byte beyond a batch.
    """
    return min(8 * size, BATCH_CELLS + size)
