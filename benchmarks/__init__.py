"""Measure fink-dask beside Fink's own client, Spark and the bare drain of Kafka: ``make bench``."""
