"""The codes in the tables of operations, which the compilers of a schema write and the two passes read.

An operation is a row: what it does, how often it does it for neighbouring columns, the branches of its union (0 where
there is none), the byte of the null branch (-1 where there is none), its first column (in pass 1: where the bytes are
counted), where a null, an empty array or a further item leads, and two numbers more:

==========================================  ==================================================================
`MARK`                                      A: which of the places that are noted
`RECORD`, `BLOCKS`, `CHOICE` (pass 2)       A, B: which columns get an offset for a null, by the table of these
`NEXT` (pass 1)                             A: the scope of the items; B: what one may take of the budget
`RANGED`                                    A, B: the least and the greatest value
`ENUM`                                      A: the first symbol; B: how many there are (pass 1)
`DECIMAL`                                   A: its limits (pass 1) or bytes in Arrow (pass 2); B: bytes of a fixed
`FIXED`, `SKIP_FIXED`                       A: bytes
==========================================  ==================================================================

A `CHOICE` is followed by a `GOTO` for each branch of its union, which has the column of the member and leads to where
the member is read; what ends there is a `GOTO` that leads behind all members.
"""

from __future__ import annotations

#: Columns of a table of operations.
CODE, REPEAT, BRANCHES, NULL_BYTE, COLUMN, JUMP, A, B = range(8)
#: Operations that control the flow, and those that read one value.
STOP, MARK, RECORD, BLOCKS, NEXT, CHOICE, GOTO = range(7)
NULL, FIXED, LONG, ENUM, BOOLEAN, BYTES, DECIMAL = range(7, 14)
#: Operations of one value that only pass 1 has, and those that only pass 2 has.
RANGED, STRING = range(14, 16)
INT, FLOAT, DOUBLE, SKIP_FIXED, SKIP_NUMBER, SKIP_BYTES = range(16, 22)
#: The parts of a column in the arena: its validity, values of a fixed width, 32-bit offsets, bytes of any length.
VALID, DATA, ENDS, TEXT = range(4)
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

    Parameters
    ----------
    size : int
        Bytes of the record.

    Returns
    -------
    int
        Eight for each byte, but no more than one for each byte beyond a batch.
    """
    return min(8 * size, BATCH_CELLS + size)
