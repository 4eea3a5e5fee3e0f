"""Choose the decoder for a schema."""

from __future__ import annotations

from collections.abc import Sequence

from fink_dask.avro.decoded import Decoder
from fink_dask.avro.schema import AvroSchema


def make_decoder(schema: AvroSchema, columns: Sequence[str] | None = None) -> Decoder:
    """Make the decoder for a schema.

    Parameters
    ----------
    schema : AvroSchema
        The schema that the records were written with.
    columns : sequence of str or None
        The columns, such as ``objectId``, or fields of structs, such as ``candidate.jd``, that are decoded; None is
        all of them. A record that is bad is bad whatever columns are asked for.

    Returns
    -------
    Decoder
        A decoder, to be made once and used for many batches.

    Raises
    ------
    SettingsError
        If the schema has no such column.
    """
    # Late, because numba takes a third of a second to import.
    from fink_dask.avro.columnar import ColumnarDecoder

    return ColumnarDecoder(schema, columns)
