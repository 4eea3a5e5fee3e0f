"""A Kafka that asks for a password, for all tests of commands that give one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.secure import SecureKafka, secure_kafka
from tests.harness.topics import create_topic


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    found = secure_kafka(tmp_path_factory.mktemp("secure"))
    try:
        found.broker.start()
        create_topic(found.broker.bootstrap_servers, "ftransfer_ztf_2026-11-01_1", 1)
        yield found
    finally:
        found.broker.discard()
