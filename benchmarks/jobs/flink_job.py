"""Move a topic into Parquet with Flink; a script that needs apache-flink and nothing of this project."""

import sys
from pathlib import Path

from pyflink.common import Configuration, WatermarkStrategy
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.datastream.connectors.kafka import KafkaOffsetsInitializer, KafkaSource
from pyflink.datastream.formats.avro import AvroRowDeserializationSchema
from pyflink.table import StreamTableEnvironment

#: The column of the time, the day of the Unix epoch in its scale, and how far that scale is ahead of UTC.
TIMES = {
    "ztf": ("jd", "candidate", 2440587.5, 0),
    "lsst": ("midpointMjdTai", "diaSource", 40587.0, 37),
}


def main() -> None:
    """Read everything that the topic holds now, decode it, and write it by year, month and day."""
    bootstrap, topic, survey, schema_file, outdir, cores, sorting = sys.argv[1:]
    schema = Path(schema_file).read_text(encoding="utf-8")
    settings = Configuration()
    for name, value in {
        # A batch of all offsets, as Spark's: files of a stream are complete at checkpoints only.
        "execution.runtime-mode": "BATCH",
        "parallelism.default": cores,
        "taskmanager.numberOfTaskSlots": cores,
        # Rows are sorted by day before they are written, as by Spark; 128 MB by default.
        "taskmanager.memory.managed.size": sorting,
        "table.local-time-zone": "UTC",
    }.items():
        settings.set_string(name, value)
    environment = StreamExecutionEnvironment.get_execution_environment(settings)
    source = (
        KafkaSource.builder()
        .set_bootstrap_servers(bootstrap)
        .set_topics(topic)
        .set_starting_offsets(KafkaOffsetsInitializer.earliest())
        .set_bounded(KafkaOffsetsInitializer.latest())
        # The SQL format takes the branches of a union to be in another order than Fink writes them.
        .set_value_only_deserializer(AvroRowDeserializationSchema(avro_schema_string=schema))
        .build()
    )
    alerts = environment.from_source(source, WatermarkStrategy.no_watermarks(), "alerts")
    tables = StreamTableEnvironment.create(environment)
    table = tables.from_data_stream(alerts)
    tables.create_temporary_view("alerts", table)
    flat, nested, epoch, ahead_s = TIMES[survey]
    names = table.get_schema().get_field_names()
    time = f"`{flat}`" if flat in names else f"`{nested}`.`{flat}`"
    moment = f"TO_TIMESTAMP_LTZ(CAST((({time} - {epoch}) * 86400 - {ahead_s}) * 1000 AS BIGINT), 3)"
    parts = ("year", "yyyy"), ("month", "MM"), ("day", "dd")
    columns = [f"`{name}`" for name in names if name not in {"year", "month", "day"}]
    columns += [f"DATE_FORMAT({moment}, '{pattern}') AS `{name}`" for name, pattern in parts]
    options = (
        f"'connector' = 'filesystem', 'path' = 'file://{outdir}', 'format' = 'parquet', 'parquet.compression' = 'ZSTD'"
    )
    table_of_files = f"CREATE TABLE written PARTITIONED BY (`year`, `month`, `day`) WITH ({options})"
    # The names are those of the schema.
    write = f"{table_of_files} AS SELECT {', '.join(columns)} FROM alerts"  # noqa: S608
    tables.execute_sql(write).wait()
    # The files of a batch have no ending.
    for file in Path(outdir).rglob("part-*"):
        file.rename(f"{file}.parquet")


main()
