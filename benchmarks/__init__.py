"""Measure fink-dask beside Fink's own client, Spark, Flink and the bare drain of Kafka: ``make bench``."""
