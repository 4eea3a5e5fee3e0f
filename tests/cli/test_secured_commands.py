"""Each command that speaks to Kafka speaks to one that asks for a password and shows a certificate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.alerts.made_up import AlertKind
from tests.harness.cli import run_cli
from tests.harness.oracle import Oracle, fill_topic
from tests.harness.secure import PASSWORD, USER, SecureKafka

TOPIC = "ftransfer_ztf_2026-11-01_7"


@pytest.fixture(scope="module")
def oracle(secure: SecureKafka) -> Oracle:
    return fill_topic(secure.broker.bootstrap_servers, TOPIC, AlertKind.ZTF_LIGHT, 60, partitions=2)


@pytest.fixture(scope="module")
def way(secure: SecureKafka, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return all options that say how to come by the broker."""
    folder = tmp_path_factory.mktemp("way")
    (folder / "password").write_text(f"{PASSWORD}\n")
    (folder / "password").chmod(0o600)
    return [
        *("--bootstrap-servers", secure.broker.address("SASLTLS"), "--security-protocol", "SASL_SSL"),
        *("--sasl-mechanism", "SCRAM-SHA-512", "--username", USER, "--password-file", str(folder / "password")),
        *("--ssl-ca-file", str(secure.ca_file)),
    ]


@pytest.fixture(scope="module")
def dataset(oracle: Oracle, way: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    outdir = tmp_path_factory.mktemp("dataset") / "alerts"
    ended = run_cli("transfer", "--topic", TOPIC, "--outdir", str(outdir), *way, "--dashboard-address", "127.0.0.1:0")
    assert ended.returncode == 0, ended.stderr
    return outdir


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["doctor", TOPIC], "60 alerts"),
        (["topics"], TOPIC),
        (["schema", TOPIC], "candid"),
        (["peek", TOPIC], "objectId"),
        (["publish", "--topic", "ftransfer_ztf_2026-11-01_8", "--synthetic", "5", "--partitions", "3"], "5 alerts"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_comes_in_with_all_the_options(
    oracle: Oracle, way: list[str], command: list[str], words: str
) -> None:
    result = run_cli(*command, *way)
    assert result.returncode == 0, result.stderr
    assert words in result.stdout + result.stderr
    refused = run_cli(*command, *way[:-2])  # the authority is none that this machine knows
    assert refused.returncode == 1, refused.stdout
    assert "TLS" in refused.stdout + refused.stderr
    assert PASSWORD not in result.stdout + result.stderr + refused.stdout + refused.stderr


def test_a_dataset_is_held_against_kafka_and_repaired_with_all_the_options(
    oracle: Oracle, way: list[str], dataset: Path
) -> None:
    sample = ("--against-kafka", "--sample", "20", "--seed", "3")
    verified = run_cli("verify", str(dataset), *sample, *way)
    assert verified.returncode == 0, verified.stderr
    assert "20 records" in verified.stdout
    next(dataset.rglob("*.parquet")).unlink()
    repaired = run_cli("repair", str(dataset), *way, "--json")
    assert repaired.returncode == 0, repaired.stderr
    assert json.loads(repaired.stdout)["alerts"] == 60
    verified = run_cli("verify", str(dataset), *sample, *way)
    assert verified.returncode == 0, verified.stdout
