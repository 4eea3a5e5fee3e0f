"""Move Kafka topics of Fink astronomical alerts into complete, partitioned Parquet datasets, with Dask."""

import logging

__version__ = "0.1.0"

# A library leaves it to its user where its log goes; without a handler, warnings would go to stderr.
logging.getLogger(__name__).addHandler(logging.NullHandler())
