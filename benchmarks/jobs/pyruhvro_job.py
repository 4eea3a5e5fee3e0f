"""Decode the packets of an Avro file with pyruhvro; a script that needs it and fastavro, and nothing from here."""

import io
import json
import statistics
import sys
import time
from pathlib import Path

import fastavro
import pyruhvro  # type: ignore[import-not-found]  # of another environment

BATCH_BYTES = 2**22
REPEATS = 15


def main() -> None:
    """Print the microseconds of the processor that a packet takes: the median of batches of about 4 MiB."""
    with Path(sys.argv[1]).open("rb") as file:
        reader = fastavro.reader(file)
        schema, values = reader.writer_schema, []
        for packet in reader:
            encoded = io.BytesIO()
            fastavro.schemaless_writer(encoded, schema, packet)
            values.append(encoded.getvalue())
    values *= -(-BATCH_BYTES // sum(map(len, values)))
    text, taken = json.dumps(schema), []
    for _ in range(REPEATS):
        began = time.process_time()
        rows = pyruhvro.deserialize_array(values, text).num_rows
        taken.append(time.process_time() - began)
        assert rows == len(values)
    print(statistics.median(taken) / len(values) * 1e6)


if __name__ == "__main__":
    main()
