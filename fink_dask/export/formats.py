"""Formats of tables, each written while the rows come: FITS, VOTable, CSV and Parquet."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fink_dask.dataset.encoding import ParquetFileWriter
from fink_dask.errors import SettingsError
from fink_dask.settings import COMPRESSION
from fink_dask.store.newfile import write_pieces

#: Rows, from the first one on each time that it is called.
Rows = Callable[[], Iterator[pa.RecordBatch]]

_FITS_BLOCK = 2880
#: Characters of a description that fit on a card of a header.
_COMMENT = 60
#: Rows of a row group of Parquet.
_GROUP_ROWS = 200_000
_HINT = "pip install 'fink-dask[report]'"
#: Types of Arrow that both FITS and VOTable have: the codes of numpy and FITS, and VOTable's word.
_NUMBERS = {
    pa.int8(): (">i2", "I", "short"),
    pa.int16(): (">i2", "I", "short"),
    pa.int32(): (">i4", "J", "int"),
    pa.int64(): (">i8", "K", "long"),
    pa.uint8(): (">i2", "I", "short"),
    pa.uint16(): (">i4", "J", "int"),
    pa.uint32(): (">i8", "K", "long"),
    pa.float16(): (">f4", "E", "float"),
    pa.float32(): (">f4", "E", "float"),
    pa.float64(): (">f8", "D", "double"),
}
#: What neither a header of FITS nor XML can hold.
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    #: Its name, a dotted path.
    path: str
    type: pa.DataType
    #: As in FITS and VOTable; empty if it has none, or it is not known.
    unit: str
    #: What the schema of the alerts says of it, any text; empty if that says nothing.
    description: str = ""


def write_parquet(path: Path, columns: Sequence[Column], rows: Rows) -> int:
    """Write a Parquet file of plain columns; returns how many rows it has."""
    schema = pa.schema([pa.field(column.path, column.type, metadata=_said(column)) for column in columns])
    writer, count = ParquetFileWriter(path, schema, COMPRESSION, {}), 0
    waiting: list[pa.RecordBatch] = []
    try:
        for batch in rows():
            waiting.append(batch.cast(schema))
            count += batch.num_rows
            if sum(each.num_rows for each in waiting) >= _GROUP_ROWS:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting))
        writer.complete()
    finally:
        writer.close()
    return count


def write_csv(path: Path, columns: Sequence[Column], rows: Rows) -> int:
    """Write comma-separated values, null as nothing; returns how many rows there are."""
    import csv

    count = 0
    with path.open("x", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([column.path for column in columns])
        for batch in rows():
            writer.writerows(zip(*map(_texts, batch.columns), strict=True))
            count += batch.num_rows
    return count


def write_votable(path: Path, columns: Sequence[Column], rows: Rows) -> int:
    """Write a VOTable; returns how many rows it has. https://www.ivoa.net/documents/VOTable/."""
    count = 0
    with path.open("x", encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n')
        file.write('<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">\n<RESOURCE>\n<TABLE>\n')
        file.writelines(map(_votable_field, columns))
        file.write("<DATA>\n<TABLEDATA>\n")
        for batch in rows():
            for cells in zip(*map(_texts, batch.columns), strict=True):
                inside = "".join(f"<TD>{'' if cell is None else escape(_xml(cell))}</TD>" for cell in cells)
                file.write(f"<TR>{inside}</TR>\n")
            count += batch.num_rows
        file.write("</TABLEDATA>\n</DATA>\n</TABLE>\n</RESOURCE>\n</VOTABLE>\n")
    return count


def write_fits(path: Path, columns: Sequence[Column], rows: Rows) -> int:
    """Write a binary table of FITS; returns how many rows it has. https://fits.gsfc.nasa.gov/fits_standard.html.

    All rows are read twice, as a header says first how many there are, and how long their texts can be.
    """
    try:
        from astropy.io import fits
    except ImportError as error:
        raise SettingsError(f"FITS needs astropy: {_HINT}") from error
    count, widths = 0, [1] * len(columns)
    for batch in rows():
        count += batch.num_rows
        for index, column in enumerate(columns):
            if not _is_plain(column.type):
                widths[index] = max(widths[index], *map(len, _ascii(batch.column(index))))
    sized = list(zip(columns, widths, strict=True))
    layout = np.dtype([(f"c{index}", _numpy_type(column.type, width)) for index, (column, width) in enumerate(sized)])
    of_fits = fits.ColDefs([_fits_column(fits, column, width) for column, width in sized])
    header = fits.BinTableHDU.from_columns(of_fits, nrows=0).header
    header["NAXIS2"] = count
    for number, column in enumerate(columns, 1):
        if column.description:
            header[f"TCOMM{number}"] = _UNPRINTABLE.sub("?", column.description)[:_COMMENT]
    with path.open("xb") as file:
        file.write(fits.PrimaryHDU().header.tostring().encode("ascii"))
        file.write(header.tostring().encode("ascii"))
        size = 0
        for batch in rows():
            table = np.zeros(batch.num_rows, layout)
            for index, column in enumerate(columns):
                table[f"c{index}"] = _fits_values(batch.column(index), column.type)
            size += write_pieces(file, table.tobytes())
        file.write(bytes(-size % _FITS_BLOCK))
    return count


FORMATS: dict[str, Callable[[Path, Sequence[Column], Rows], int]] = {
    ".fits": write_fits,
    ".vot": write_votable,
    ".csv": write_csv,
    ".parquet": write_parquet,
}


def _texts(array: pa.Array) -> list[str | None]:
    """Spell values, floats as shortly as they can be read again."""
    found: list[str | None] = array.cast(pa.string()).to_pylist()
    return found


def _xml(text: str) -> str:
    """Spell what XML has no character for."""
    return _NOT_XML.sub(lambda match: ascii(match[0])[1:-1], text)


def _said(column: Column) -> dict[str, str] | None:
    """Return what is known of a column besides its type."""
    return {key: text for key, text in (("unit", column.unit), ("description", column.description)) if text} or None


def _votable_field(column: Column) -> str:
    said = f"<DESCRIPTION>{escape(_xml(column.description))}</DESCRIPTION>" if column.description else ""
    return f"<FIELD name={quoteattr(_xml(column.path))}{_votable_type(column)}>{said}</FIELD>\n"


def _votable_type(column: Column) -> str:
    if pa.types.is_boolean(column.type):
        kind = ' datatype="boolean"'
    elif column.type in _NUMBERS:
        kind = f' datatype="{_NUMBERS[column.type][2]}"'
    else:
        kind = ' datatype="unicodeChar" arraysize="*"'
    return kind + (f" unit={quoteattr(_xml(column.unit))}" if column.unit else "")


def _is_plain(kind: pa.DataType) -> bool:
    """Tell whether FITS has the type; all others are text there."""
    return kind in _NUMBERS or bool(pa.types.is_boolean(kind))


def _ascii(array: pa.Array) -> list[bytes]:
    """Spell texts in ASCII, which is all that FITS has; null is nothing."""
    return [
        b"" if text is None else _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text).encode()
        for text in _texts(array)
    ]


def _numpy_type(kind: pa.DataType, width: int) -> str:
    if pa.types.is_boolean(kind):
        return "u1"
    return _NUMBERS[kind][0] if kind in _NUMBERS else f"S{width}"


def _least(kind: pa.DataType) -> int:
    """Return the number that stands for null."""
    return int(np.iinfo(np.dtype(_NUMBERS[kind][0])).min)


def _fits_column(fits: Any, column: Column, width: int) -> Any:
    if pa.types.is_boolean(column.type):
        code, null = "L", None
    elif column.type in _NUMBERS:
        code = _NUMBERS[column.type][1]
        null = None if pa.types.is_floating(column.type) else _least(column.type)
    else:
        code, null = f"{width}A", None
    name, unit = (_UNPRINTABLE.sub("?", text) for text in (column.path, column.unit))
    return fits.Column(name=name, format=code, unit=unit or None, null=null)


def _fits_values(array: pa.Array, kind: pa.DataType) -> Any:
    """Return values as FITS keeps them, with its own null."""
    if pa.types.is_boolean(kind):
        return np.where(
            array.is_valid().to_numpy(zero_copy_only=False),
            np.where(pc.fill_null(array, False).to_numpy(zero_copy_only=False), ord("T"), ord("F")),
            0,
        )
    if pa.types.is_floating(kind):
        return pc.fill_null(array.cast(pa.float64()), np.nan).to_numpy(zero_copy_only=False)
    if kind in _NUMBERS:
        return pc.fill_null(array.cast(pa.int64()), _least(kind)).to_numpy(zero_copy_only=False)
    return _ascii(array)
