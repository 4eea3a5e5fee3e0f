"""A Kafka that asks who one is, and shows certificates: right ones, and three that nobody should accept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from tests.harness.kafka import KafkaBroker, make_nodes
from tests.harness.kafka_settings import HOST, free_ports
from tests.harness.link import FarKafka, Line, Link

USER = "alice"
#: Long and rare, so that it can be looked for wherever it must not be.
PASSWORD = "correct-horse-4f9d1c-battery"

#: The listeners, by name; the first one is for the harness itself.
PROTOCOLS = {
    "PLAINTEXT": "PLAINTEXT",
    "SASL": "SASL_PLAINTEXT",
    "SASLTLS": "SASL_SSL",
    "TLS": "SSL",
    "EXPIRED": "SSL",
    "ELSEWHERE": "SSL",
    "TOKENS": "SASL_PLAINTEXT",
}
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
#: Kafka's own, which takes tokens that nobody has signed; without the claim, the module does not start.
_TOKENS = (
    "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required "
    'unsecuredLoginStringClaim_sub="broker";'
)


@dataclass(frozen=True)
class SecureKafka:
    """A broker with a listener for each of `PROTOCOLS`."""

    broker: KafkaBroker
    #: The authority that signed its certificates.
    ca_file: Path
    #: An authority that did not.
    foreign_ca_file: Path


def secure_kafka(folder: Path, more: Mapping[str, str] | None = None) -> SecureKafka:
    """Make a broker; `EXPIRED` shows a certificate of last year, `ELSEWHERE` one for another host."""
    folder.mkdir(parents=True, exist_ok=True)
    authority, ca_file, foreign = trustme.CA(), folder / "ca.pem", folder / "foreign-ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    trustme.CA().cert_pem.write_to_path(str(foreign))
    year = timedelta(days=365)
    now = datetime.now(UTC)
    stores = {
        "server": authority.issue_cert(HOST),
        "expired": authority.issue_cert(HOST, not_before=now - 2 * year, not_after=now - year),
        "elsewhere": authority.issue_cert("kafka.example.org"),
    }
    for name, certificate in stores.items():
        _write_store(folder / f"{name}.pem", certificate)
    extra = {
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.tokens.sasl.enabled.mechanisms": "OAUTHBEARER",
        "listener.name.tokens.oauthbearer.sasl.jaas.config": _TOKENS,
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "server.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(ca_file),
    }
    for listener in ("sasl", "sasltls"):
        extra[f"listener.name.{listener}.scram-sha-512.sasl.jaas.config"] = _SCRAM
    for listener in ("expired", "elsewhere"):
        extra[f"listener.name.{listener}.ssl.keystore.type"] = "PEM"
        extra[f"listener.name.{listener}.ssl.keystore.location"] = str(folder / f"{listener}.pem")
    extra |= more or {}
    broker = KafkaBroker(folder / "broker", extra, make_nodes(1, PROTOCOLS), users={USER: PASSWORD})
    return SecureKafka(broker, ca_file, foreign)


def ways(kafka: SecureKafka, folder: Path) -> list[str]:
    """Spell the options with which a command comes by its listener with password and certificate."""
    password = folder / "password"
    password.write_text(f"{PASSWORD}\n")
    password.chmod(0o600)
    return [
        *("--security-protocol", "SASL_SSL", "--sasl-mechanism", "SCRAM-SHA-512", "--username", USER),
        *("--password-file", str(password), "--ssl-ca-file", str(kafka.ca_file)),
    ]


@contextmanager
def far_secure_kafka(folder: Path, line: Line) -> Iterator[tuple[SecureKafka, FarKafka]]:
    """Run such a broker, whose listener with password and certificate is behind a link."""
    secure = secure_kafka(folder)
    behind = secure.broker.address("SASLTLS")
    (far,) = free_ports(1)
    properties = secure.broker.properties
    properties["advertised.listeners"] = properties["advertised.listeners"].replace(behind, f"{HOST}:{far}")
    try:
        secure.broker.start()
        with Link({far: int(behind.rpartition(":")[2])}, line) as link:
            yield secure, FarKafka(f"{HOST}:{far}", secure.broker, link)
    finally:
        secure.broker.discard()


def _write_store(path: Path, certificate: trustme.LeafCert) -> None:
    """Write key and certificates as Kafka takes them: the key in PKCS #8."""
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    )
