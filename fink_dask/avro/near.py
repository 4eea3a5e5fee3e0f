"""Which column a user may have meant where alerts have none of that name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

import pyarrow as pa


def near_column(column: str, fields: Iterable[pa.Field]) -> str:
    """Name the column that the user may have meant, for the end of an error; fields of structs have dots.

    Returns
    -------
    str
        Such as ``; did you mean magpsf?``; empty where nothing is like it.
    """
    names = []
    for field in fields:
        names.append(field.name)
        if pa.types.is_struct(field.type):
            names += [f"{field.name}.{field.type.field(index).name}" for index in range(field.type.num_fields)]
    last = column.rpartition(".")[2]
    found = [name for name in names if name.rpartition(".")[2] == last] or get_close_matches(column, names, 1)
    return f"; did you mean {found[0]}?" if found else ""
