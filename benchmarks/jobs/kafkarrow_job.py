"""Read a topic with kafkarrow; a script that needs it and nothing of this project."""

import json
import sys
import time

import pyarrow.compute as pc
from kafkarrow import ConsumerManager, SourceTopic  # type: ignore[import-not-found]  # of another environment


def main() -> None:
    """Read so many records, and print how many there were, their bytes and the seconds."""
    bootstrap, topic, wanted = sys.argv[1], sys.argv[2], int(sys.argv[3])
    began = time.time()
    settings = {"bootstrap.servers": bootstrap, "fetch.wait.max.ms": "10"}
    manager = ConsumerManager(config=settings, topics=[SourceTopic.from_earliest(topic)])
    records = size = 0
    while records < wanted:
        batch = manager.poll(timeout_ms=1000)
        records += batch.num_rows
        size += pc.sum(pc.binary_length(batch["value"])).as_py() or 0
    print(json.dumps({"records": records, "bytes": size, "seconds": time.time() - began}))


if __name__ == "__main__":
    main()
