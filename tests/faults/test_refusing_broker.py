"""A broker that allows reading and nothing else, no group's coordinator either."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from tests.alerts.made_up import AlertKind
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.kafka import ExternalKafka
from tests.harness.oracle import assert_exactly_once, fill_topic
from tests.harness.secure import USER, SecureKafka, secure_kafka, ways
from tests.harness.topics import PATIENCE_S, client_config

pytestmark = pytest.mark.links
TOPIC = "ftransfer_ztf_2026-11-01_1"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """Yield a Kafka that lets its one user read topics and describe them, and nothing else."""
    rules = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    found = secure_kafka(tmp_path_factory.mktemp("strict"), rules)
    try:
        found.broker.start()
        admin = AdminClient(client_config(found.broker.bootstrap_servers))
        allowed = [
            AclBinding(
                ResourceType.TOPIC,
                "*",
                ResourcePatternType.LITERAL,
                f"User:{USER}",
                "*",
                operation,
                AclPermissionType.ALLOW,
            )
            for operation in (AclOperation.READ, AclOperation.DESCRIBE)
        ]
        for future in admin.create_acls(allowed).values():
            future.result(PATIENCE_S)
        yield found
    finally:
        found.broker.discard()


@pytest.mark.sample
def test_a_broker_that_refuses_the_coordinator_of_the_group_refuses_nothing_that_is_needed(
    strict: SecureKafka, tmp_path: Path
) -> None:
    oracle = fill_topic(strict.broker.bootstrap_servers, TOPIC, AlertKind.ZTF_LIGHT, 500, partitions=3)
    kafka = ExternalKafka(strict.broker.address("SASLTLS"))
    result = run_cli(*transfer_arguments(kafka, TOPIC, tmp_path / "alerts", *ways(strict, tmp_path)))
    assert result.returncode == 0, result.stderr
    assert_exactly_once(tmp_path / "alerts", oracle.values)
