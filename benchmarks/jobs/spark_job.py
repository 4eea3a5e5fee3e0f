"""Move a topic into Parquet with Spark; a script that needs pyspark and nothing of this project."""

import sys
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql.avro.functions import from_avro
from pyspark.sql.functions import col, date_format, lit, timestamp_seconds

#: The column of the time, the day of the Unix epoch in its scale, and how far that scale is ahead of UTC.
TIMES = {
    "ztf": ("jd", "candidate.jd", 2440587.5, 0),
    "lsst": ("midpointMjdTai", "diaSource.midpointMjdTai", 40587.0, 37),
}


def main() -> None:
    """Read everything that the topic holds now, decode it, and write it by year, month and day."""
    bootstrap, topic, survey, schema_file, outdir, cores, memory, jars = sys.argv[1:]
    schema = Path(schema_file).read_text(encoding="utf-8")
    spark = (
        SparkSession.builder.master(f"local[{cores}]")
        .config("spark.driver.memory", memory)
        .config("spark.jars", jars)
        .config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.parquet.compression.codec", "zstd")
        .getOrCreate()
    )
    records = (
        spark.read.format("kafka")
        .option("kafka.bootstrap.servers", bootstrap)
        .option("subscribe", topic)
        .option("startingOffsets", "earliest")
        .option("endingOffsets", "latest")
        .load()
    )
    # As users get it who ask for every field; a record that can't be decoded fails the job.
    alerts = records.select(from_avro(col("value"), schema, {"mode": "FAILFAST"}).alias("alert")).select("alert.*")
    flat, nested, epoch, ahead_s = TIMES[survey]
    day = timestamp_seconds((col(flat if flat in alerts.columns else nested) - lit(epoch)) * 86400 - lit(ahead_s))
    alerts = alerts.drop("year", "month", "day").withColumn("_day", day)
    for name, pattern in (("year", "yyyy"), ("month", "MM"), ("day", "dd")):
        alerts = alerts.withColumn(name, date_format("_day", pattern))
    alerts.drop("_day").write.partitionBy("year", "month", "day").parquet(outdir)
    spark.stop()


main()
