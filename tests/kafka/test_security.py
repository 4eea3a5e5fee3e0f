"""Kafka behind passwords and certificates: the right ones work, and each wrong one is a line of words in seconds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from fink_dask.errors import BrokerError, SettingsError
from fink_dask.kafka.confluent import Errors, client_config
from fink_dask.kafka.connection import open_connection
from fink_dask.kafka.inspect import open_inspector
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.kafka.reader import RangeReader
from fink_dask.settings import KafkaSettings, Security
from tests.harness.producer import produce
from tests.harness.secure import PASSWORD, USER, SecureKafka, secure_kafka
from tests.harness.tokens import CLIENT, SCOPE, SECRET, IdentityServer, identity_server
from tests.harness.topics import create_topic

TOPIC = "ftransfer_ztf_2026-11-01_20"
OAUTH = {"protocol": "SASL_SSL", "mechanism": "OAUTHBEARER", "username": "me", "password": "secret"}


@pytest.fixture(scope="module", autouse=True)
def topic(secure: SecureKafka) -> None:
    create_topic(secure.broker.bootstrap_servers, TOPIC, 1)
    produce(secure.broker.bootstrap_servers, TOPIC, [b"value"] * 20)


def settings(secure: SecureKafka, listener: str, protocol: str, ca: Path | None = None, **more: Any) -> KafkaSettings:
    if protocol.startswith("SASL"):
        more = {"username": USER, "password": PASSWORD, **more}
    security = Security(protocol, ca_pem=None if ca is None else ca.read_text(), **more)
    return KafkaSettings(secure.broker.address(listener), request_timeout_s=6, security=security)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("listener", "protocol"), [("SASL", "SASL_PLAINTEXT"), ("SASLTLS", "SASL_SSL"), ("TLS", "SSL")]
)
def test_the_right_password_and_certificate_are_let_in(secure: SecureKafka, listener: str, protocol: str) -> None:
    kafka = settings(secure, listener, protocol, secure.ca_file)
    with open_inspector(kafka) as inspector:
        description = inspector.describe(TOPIC)
    assert description.watermarks[0].last_stable_offset == 20
    assert len(description.topic_id) > 10, "asked through the admin client"
    with open_connection(kafka) as connection:
        reader = RangeReader(connection, TOPIC, OffsetRange(0, 0, 20), lambda: False, description.topic_id)
        assert sum(map(len, reader.batches(1000, 2**20))) == 20


@pytest.mark.parametrize(
    ("listener", "protocol", "more", "words"),
    [
        ("SASL", "SASL_PLAINTEXT", {"password": "wrong"}, "--username.*--password-file"),
        ("SASL", "SASL_PLAINTEXT", {"username": "bob"}, "--username.*--password-file"),
        ("SASLTLS", "SASL_SSL", {"password": "wrong"}, "--username.*--password-file"),
        ("SASL", "SASL_PLAINTEXT", {"mechanism": "PLAIN"}, "--sasl-mechanism.* SCRAM-SHA-512"),
        ("TLS", "SSL", {"ca": "foreign"}, "--ssl-ca-file"),
        ("TLS", "SSL", {"ca": "system"}, "--ssl-ca-file"),
        ("EXPIRED", "SSL", {}, "--ssl-ca-file.*expired"),
        ("ELSEWHERE", "SSL", {}, "--ssl-ca-file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    secure: SecureKafka, listener: str, protocol: str, more: dict[str, Any], words: str
) -> None:
    authorities = {"right": secure.ca_file, "foreign": secure.foreign_ca_file, "system": None}
    options = dict(more)
    kafka = settings(secure, listener, protocol, authorities[options.pop("ca", "right")], **options)
    with pytest.raises(BrokerError, match=words) as caught, open_inspector(kafka) as inspector:
        inspector.describe(TOPIC)
    assert "\n" not in str(caught.value)
    assert PASSWORD not in str(caught.value)


@pytest.fixture
def confused(tmp_path: Path) -> Iterator[SecureKafka]:
    """A Kafka that others do not share: TLS that comes to a listener with passwords may keep a core busy for good."""
    kafka = secure_kafka(tmp_path)
    try:
        kafka.broker.start()
        yield kafka
    finally:
        kafka.broker.discard()


def test_the_wrong_protocol_is_said_with_the_one_that_is_most_likely_wanted(confused: SecureKafka) -> None:
    """A broker that is spoken to in another protocol hangs up, or says something else: it is neither off nor strict."""
    wanted = {
        ("PLAINTEXT", "SASL"): ["SASL_PLAINTEXT"],
        ("PLAINTEXT", "TLS"): ["SSL", "SASL_SSL"],
        ("PLAINTEXT", "SASLTLS"): ["SSL", "SASL_SSL"],
        ("SSL", "PLAINTEXT"): ["PLAINTEXT"],
        ("SSL", "SASL"): ["PLAINTEXT"],
        ("SSL", "SASLTLS"): ["SASL_SSL"],
        ("SASL_PLAINTEXT", "PLAINTEXT"): ["PLAINTEXT"],
        ("SASL_PLAINTEXT", "TLS"): ["SASL_SSL"],
        ("SASL_PLAINTEXT", "SASLTLS"): ["SASL_SSL"],
        ("SASL_SSL", "PLAINTEXT"): ["SASL_PLAINTEXT"],
        ("SASL_SSL", "SASL"): ["SASL_PLAINTEXT"],
        ("SASL_SSL", "TLS"): ["SSL"],
    }

    def say(protocol: str, listener: str) -> str:
        kafka = settings(confused, listener, protocol, confused.ca_file)
        with (
            pytest.raises(BrokerError) as caught,
            open_inspector(replace(kafka, request_timeout_s=300)) as inspector,
        ):
            inspector.describe(TOPIC)
        return str(caught.value)

    with ThreadPoolExecutor(len(wanted)) as threads:
        said = dict(zip(wanted, threads.map(lambda pair: say(*pair), wanted), strict=True))
    named = {pair: re.findall(r"\b(?:SASL_)?(?:PLAINTEXT|SSL)\b", words.split(" (")[0]) for pair, words in said.items()}
    assert named == wanted, said
    assert all("--security-protocol" in words for words in said.values())
    assert not any("--password-file" in words for words in said.values())


@pytest.fixture(scope="module")
def identity() -> Iterator[IdentityServer]:
    with identity_server() as found:
        yield found


def with_token(secure: SecureKafka, identity: IdentityServer, **more: Any) -> KafkaSettings:
    who = {"username": CLIENT, "password": SECRET, "token_url": identity.url, **more}
    return settings(secure, "TOKENS", "SASL_PLAINTEXT", mechanism="OAUTHBEARER", **who)


def test_a_token_of_an_identity_server_is_let_in(secure: SecureKafka, identity: IdentityServer) -> None:
    kafka = with_token(secure, identity, scope=SCOPE)
    with open_inspector(kafka) as inspector:
        assert inspector.describe(TOPIC).watermarks[0].last_stable_offset == 20
    with open_connection(kafka) as connection:
        reader = RangeReader(connection, TOPIC, OffsetRange(0, 0, 20), lambda: False)
        assert sum(map(len, reader.batches(1000, 2**20))) == 20
    assert [parse_qs(body)["scope"] for body in identity.asked] == [[SCOPE]] * len(identity.given)


@pytest.mark.parametrize(
    ("more", "answer", "in_s", "words"),
    [
        ({"password": "wrong"}, None, 0, "token.*invalid_client"),
        ({}, (400, '{"error": "invalid_scope"}'), 0, "token.*invalid_scope"),
        ({}, (200, "<html>"), 0, r"127\.0\.0\.1.*identity server"),
        ({}, (200, '{"access_token": "abc"}'), 0, r"127\.0\.0\.1.*identity server"),
        ({"token_url": "http://127.0.0.1:1/token"}, None, 0, r"127\.0\.0\.1.*identity server"),
        ({}, None, 3000, "--username.*--password-file"),
    ],
)
def test_a_token_that_is_not_given_or_not_taken_is_said_in_one_line(
    secure: SecureKafka,
    identity: IdentityServer,
    more: dict[str, Any],
    answer: tuple[int, str] | None,
    in_s: int,
    words: str,
) -> None:
    identity.answer, identity.in_s = answer, in_s
    kafka = replace(with_token(secure, identity, **more), request_timeout_s=1)
    try:
        with pytest.raises(BrokerError, match=words) as caught, open_inspector(kafka) as inspector:
            inspector.describe(TOPIC)
    finally:
        identity.answer, identity.in_s = None, 0
    assert "\n" not in str(caught.value)
    assert not any(text in str(caught.value) for text in (SECRET, *identity.given))


def test_a_password_that_was_changed_ends_the_reading_long_before_kafka_is_given_up(secure: SecureKafka) -> None:
    refused = replace(settings(secure, "SASL", "SASL_PLAINTEXT", password="wrong"), reconnect_timeout_s=1000)
    with open_connection(refused) as connection:
        reader = RangeReader(connection, TOPIC, OffsetRange(0, 0, 20), lambda: False)
        with pytest.raises(BrokerError, match=r"--username.*--password-file"):
            list(reader.batches(1000, 2**20))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"protocol": "SASL_SSL"}, "--username"),
        ({"protocol": "SASL_SSL", "username": "me"}, "FINK_DASK_PASSWORD"),
        ({"protocol": "sasl"}, r"--security-protocol.* sasl\b"),
        ({"mechanism": "GSSAPI"}, "--sasl-mechanism.*GSSAPI"),
        (OAUTH, "--oauth-token-url"),
        (OAUTH | {"token_url": "ftp://auth.example.org/token"}, "--oauth-token-url.*https"),
        (OAUTH | {"token_url": "https://ada:secret@auth.example.org/token"}, "--oauth-token-url.*password"),
        (OAUTH | {"token_url": "https://auth.example.org/a\0b"}, "--oauth-token-url.*NUL"),
        (OAUTH | {"token_url": "https://auth.example.org/token", "scope": "\udcff"}, "--oauth-scope.*NUL"),
        ({"protocol": "SASL_SSL", "username": "me", "password": "a\0b"}, "password.*NUL"),
        ({"protocol": "SASL_SSL", "username": "me", "password": "\udcff"}, "password.*NUL"),
        ({"protocol": "SASL_SSL", "username": "\udcff", "password": "secret"}, "user name.*NUL"),
    ],
)
def test_what_is_not_enough_is_refused_before_anybody_is_asked(more: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Security(**more)


@pytest.mark.parametrize("servers", ["kafka\0.example:9092", "kafka\udcff:9092"])
def test_servers_that_no_client_can_be_told_of_are_refused_in_words(servers: str) -> None:
    with pytest.raises(SettingsError, match=r"--bootstrap-servers.*NUL"):
        KafkaSettings(servers)


def test_the_password_is_in_what_librdkafka_is_told_and_in_no_representation() -> None:
    kafka = KafkaSettings("a:1", security=Security("SASL_SSL", username="me", password=PASSWORD, ca_pem="pem"))
    config = client_config(kafka, Errors())
    assert (config["sasl.username"], config["sasl.password"], config["ssl.ca.pem"]) == ("me", PASSWORD, "pem")
    assert PASSWORD not in f"{kafka!r} {kafka}"
    # A password that is on hand is not sent where nobody asks for it.
    plain = client_config(KafkaSettings("a:1", security=Security(username="me", password=PASSWORD)), Errors())
    assert PASSWORD not in plain.values()
