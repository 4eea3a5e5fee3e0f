"""Apache's archive of Kafka, as far as the documentation uses it, made of the jars that the tests have."""

from __future__ import annotations

import io
import os
import signal
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.harness.kafka import make_nodes
from tests.harness.kafka_install import KAFKA_VERSION, ensure_kafka_jars, find_java
from tests.harness.kafka_settings import HOST, server_properties

#: What the archive is called, and the directory in it.
NAME = f"kafka_2.13-{KAFKA_VERSION}"

_JAVA = '#!/bin/bash\nhere=$(dirname "$0")\nrun=("{java}" -Xmx512m -XX:-UsePerfData -cp "{jars}/*")\n'
_SCRIPTS = {
    "kafka-storage.sh": '"${run[@]}" kafka.tools.StorageTool "$@"',
    "kafka-server-start.sh": """\
test "$1" = -daemon && shift
"${run[@]}" kafka.Kafka "$@" > "$here/server.log" 2>&1 < /dev/null &
echo $! > "$here/server.pid\"""",
    "kafka-server-stop.sh": 'kill "$(cat "$here/server.pid")"',
}


#: Stands in for the program that fetches it.
_CURL = """\
#!/bin/bash
test "$*" = "-O https://archive.apache.org/dist/kafka/{version}/{name}.tgz" && cp "{archive}" .
"""


@contextmanager
def archive_of_apache(programs: Path, folder: Path) -> Iterator[str]:
    """Let a ``curl`` among the programs of a reader fetch it into a folder, and end what is started from there.

    Yields the address at which its Kafka will be.
    """
    archive = programs.with_name(f"{NAME}.tgz")
    address = _make(archive)
    curl = programs / "curl"
    curl.write_text(_CURL.format(version=KAFKA_VERSION, name=NAME, archive=archive))
    curl.chmod(0o755)
    try:
        yield address
    finally:
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((folder / NAME / "bin" / "server.pid").read_text()), signal.SIGKILL)


def _make(archive: Path) -> str:
    """Make it; returns the address in its settings."""
    jars, java = ensure_kafka_jars(), find_java()
    node, *_ = make_nodes(1)
    properties = server_properties(node, [node], archive.with_suffix(".data"), {})
    # As Apache's own settings have it: the storage is made for one that is alone.
    del properties["controller.quorum.voters"]
    properties["controller.quorum.bootstrap.servers"] = f"{HOST}:{node.controller_port}"
    head = _JAVA.format(java=java, jars=jars)
    files = {f"bin/{name}": head + script + "\n" for name, script in _SCRIPTS.items()}
    files["config/server.properties"] = "".join(f"{name}={value}\n" for name, value in properties.items())
    with tarfile.open(archive, "w:gz") as made:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{NAME}/{name}")
            entry.size, entry.mode = len(content.encode()), 0o755
            made.addfile(entry, io.BytesIO(content.encode()))
    return f"{HOST}:{node.listeners[0].port}"
