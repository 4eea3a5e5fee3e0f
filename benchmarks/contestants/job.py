"""What every contestant is asked to do, and the surroundings that they all get."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environments import Environments
from benchmarks.fill import FilledTopic
from tests.alerts.made_up import avro_schema

#: What belongs to the caller's own environment and project, and would change what a contestant does.
_NOT_PASSED_ON = ("FINK_DASK_", "PYTHON", "VIRTUAL_ENV", "SPARK_", "FLINK_", "HADOOP_", "DASK_", "MAKE", "MFLAGS")


@dataclass(frozen=True)
class Job:
    """A topic that is to become a dataset."""

    bootstrap: str
    topic: FilledTopic
    #: An own, empty folder.
    folder: Path
    #: The home directory of whoever runs this, which holds nothing but what the contestants put there.
    home: Path
    #: Where the programs are.
    environments: Environments
    #: How many consumers, or cores.
    consumers: int
    #: Alerts that are decoded at once, where a program asks for that.
    batchsize: int

    @property
    def outdir(self) -> Path:
        """Where the dataset is to be."""
        return self.folder / "alerts"

    def spell(self, options: str) -> list[str]:
        """Put this job in the place of the words that stand for it in a contestant's options."""
        meant = {"SURVEY": self.topic.survey, "TOPIC": self.topic.name, "alerts": str(self.outdir)}
        words = options.format(consumers=self.consumers, batchsize=self.batchsize).split()
        return [meant.get(word, word) for word in words]

    def describe(self) -> list[str]:
        """Write the schema beside the dataset; return what an engine's script is told of this job."""
        schema = self.folder / "schema.json"
        schema.write_text(json.dumps(avro_schema(self.topic.kind)))
        told = (self.bootstrap, self.topic.name, self.topic.survey, schema, self.outdir, self.consumers)
        return [str(each) for each in told]

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return what a contestant finds in its environment."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_PASSED_ON)}
        return {**kept, "HOME": str(self.home), "COLUMNS": "100", "TMPDIR": str(self.folder), **(more or {})}
