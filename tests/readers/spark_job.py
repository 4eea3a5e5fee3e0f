"""Read a dataset with Spark: the question comes on stdin, the answer goes to stdout; run by Spark's own environment."""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it


def found(spark: SparkSession, asked: dict[str, Any]) -> dict[str, Any]:
    """Answer one question."""
    alerts = spark.read.parquet(asked["path"])
    source_id, time = F.col(asked["source_id"]), F.col(asked["time"])
    cutout = F.lit(None).cast("binary") if asked["cutout"] is None else F.col(asked["cutout"])
    history = F.lit(0) if asked["history"] is None else F.coalesce(F.size(asked["history"]), F.lit(-1))
    curve = (
        alerts.filter(F.col(asked["object_id"]) == asked["target"])
        .orderBy(time)
        .select(source_id, time, F.col(asked["value"]), history, cutout)
        .collect()
    )
    counts = alerts.filter(F.col("day") == asked["day"]).groupBy(asked["label"]).count().collect()
    first = curve[0][4]
    return {
        "count": alerts.count(),
        "ids": sorted(row[0] for row in alerts.select(source_id).collect()),
        "classes": [list(row) for row in counts],
        "curve": [list(row[:3]) for row in curve],
        "history": [] if asked["history"] is None else [max(0, row[3]) for row in curve],
        "cutout": None if first is None else base64.b64encode(first).decode(),
    }


def main() -> None:
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", "2")
        # Spark's vectorized reader does not know the encoding of our floating-point columns; its other one does.
        .config("spark.sql.parquet.enableVectorizedReader", "false")
        .getOrCreate()
    )
    answers = [found(spark, asked) for asked in json.load(sys.stdin)]
    spark.stop()
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
