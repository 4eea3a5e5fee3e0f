"""The words of the tables of operations: what the compilers of a schema write and the two passes read.

An operation is a row: what it does, how often it does it for neighbouring columns, the branches of its union (0 where
there is none), the byte of the null branch (-1 where there is none), its first column (in pass 1: where the bytes are
counted), where a null, an empty array or a further item leads, and two numbers more:

==========================================  ==================================================================
`MARK`                                      A: which of the places that are noted
`RECORD`, `BLOCKS` (pass 2)                 A, B: which columns get an offset for a null, by the table of these
`NEXT` (pass 1)                             A: the scope of the items; B: what one may take of the budget
`RANGED`                                    A, B: the least and the greatest value
`ENUM`                                      A: the first symbol; B: how many there are (pass 1)
`DECIMAL`                                   A: its limits (pass 1) or bytes in Arrow (pass 2); B: bytes of a fixed
`FIXED`, `SKIP_FIXED`                       A: bytes
==========================================  ==================================================================
"""

from __future__ import annotations

#: Columns of a table of operations.
CODE, REPEAT, BRANCHES, NULL_BYTE, COLUMN, JUMP, A, B = range(8)
#: Operations that steer, and those of one value.
STOP, MARK, RECORD, BLOCKS, NEXT = range(5)
NULL, FIXED, LONG, ENUM, BOOLEAN, BYTES, DECIMAL = range(5, 12)
#: Operations of one value that only pass 1 has, and those that only pass 2 has.
RANGED, STRING = range(12, 14)
INT, FLOAT, DOUBLE, SKIP_FIXED, SKIP_NUMBER, SKIP_BYTES = range(14, 20)
#: The parts of a column in the arena: its validity, values of a fixed width, 32-bit offsets, bytes of any length.
VALID, DATA, ENDS, TEXT = range(4)
#: Bytes of a decimal's limit.
LIMIT_BYTES = 32
#: Arrays and maps in each other; a schema has fewer levels.
MAX_LOOPS = 64
