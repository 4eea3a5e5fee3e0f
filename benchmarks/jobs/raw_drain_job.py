"""Read a topic with librdkafka as fast as it goes; a script that needs confluent_kafka and nothing of this project."""

import json
import multiprocessing
import sys
import time
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition


def drain(bootstrap: str, topic: str, partitions: list[int]) -> tuple[int, int, float, float]:
    """Read partitions to their end, join the values of each batch, count, and look at the clock before and after."""
    began = time.time()
    settings: dict[str, Any] = {
        "bootstrap.servers": bootstrap,
        "group.id": "none",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        "socket.timeout.ms": 300_000,  # what it fetches by default may take minutes over a slow line
        "fetch.wait.max.ms": 10,  # by default a consumer waits half a second at the end of each partition
    }
    consumer = Consumer(settings)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    records = size = 0
    open_partitions = set(partitions)
    while open_partitions:
        values = []
        for message in consumer.consume(10_000, 1.0):
            if (error := message.error()) is None:
                values.append(message.value())
            elif error.code() == KafkaError._PARTITION_EOF:
                open_partitions.discard(message.partition())
            else:
                raise KafkaException(error)
        records += len(values)
        size += len(b"".join(values))
    ended = time.time()
    consumer.close()
    return records, size, began, ended


def main() -> None:
    """Share the partitions among processes and print what they read."""
    bootstrap, topic, processes = sys.argv[1], sys.argv[2], int(sys.argv[3])
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "none"})
    partitions = sorted(reader.list_topics(topic, timeout=60).topics[topic].partitions)
    reader.close()
    shares = [(bootstrap, topic, partitions[first::processes]) for first in range(processes)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        found = pool.starmap(drain, [share for share in shares if share[2]])
    records, sizes, began, ended = zip(*found, strict=True)
    print(json.dumps({"records": sum(records), "bytes": sum(sizes), "seconds": max(ended) - min(began)}))


if __name__ == "__main__":
    main()
