"""The only importer of confluent_kafka: how a client is made, asked and closed, and what its errors mean."""

from __future__ import annotations

import logging
import math
import re
import time
from typing import Any

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
    cimpl,
    libversion,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec

from fink_dask.errors import BrokerError, BrokerUnavailableError, one_line, parameter
from fink_dask.settings import OAUTHBEARER, KafkaSettings, Security, has_sasl, has_tls

__all__ = [
    "AdminClient",
    "ConfigResource",
    "Consumer",
    "ConsumerGroupTopicPartitions",
    "Errors",
    "IsolationLevel",
    "KafkaError",
    "KafkaException",
    "Message",
    "NewTopic",
    "OffsetSpec",
    "Producer",
    "TopicCollection",
    "TopicPartition",
    "broker_error",
    "client_config",
    "client_library",
    "in_words",
    "is_of_groups",
    "is_of_protocol",
    "is_refusal",
    "is_transient",
    "librdkafka_version",
]

log = logging.getLogger(__name__)
_librdkafka_log = logging.getLogger("fink_dask.kafka.librdkafka")

_WRONG_CREDENTIALS = (
    f"the broker refused the credentials: check {parameter('username')}, and the password "
    + f"({parameter('password_file')})"
)
#: No retry helps against these: the user has to change something.
_FATAL = {
    KafkaError._AUTHENTICATION: _WRONG_CREDENTIALS,
    KafkaError.SASL_AUTHENTICATION_FAILED: _WRONG_CREDENTIALS,
    KafkaError._SSL: (
        f"TLS with the broker failed: a wrong {parameter('ssl_ca_file')}, or a certificate that is expired, foreign or "
        "another host's"
    ),
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "these credentials may not use it",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "these credentials may not use the consumer group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "these credentials may not do this",
}

#: What librdkafka says where it was given no token, and the answers after which no client is given one:
#: https://www.rfc-editor.org/rfc/rfc6749#section-5.2
_NO_TOKEN = "Failed to acquire SASL OAUTHBEARER token: "  # noqa: S105 - no password
_NO_SUCH_CLIENT = (
    *("invalid_client", "invalid_grant", "invalid_request", "invalid_scope", "unauthorized_client"),
    "unsupported_grant_type",
)

#: What librdkafka says where a password was not even looked at: what the broker, or the line, said to its mechanism.
_HANDSHAKE = re.compile(r"mechanism handshake failed: ((?:Local|Broker): [^:]*)")
_NOBODY_IS_ASKED = "Broker: Request not valid in current SASL state"

#: How librdkafka says, in its log alone, that a connection was closed, in which protocol, and how far it had come.
_CLOSED = re.compile(r"(?:\b(ssl|sasl_plaintext|sasl_ssl)://)?[^/\s]+/\w+: .*\bDisconnected\b.* in state (\w+)")

#: How librdkafka says that a name stands for no address.
_UNRESOLVED = re.compile(r"resolve '([^']+?)(?::\d+)?'")

#: How librdkafka says that nothing listens at an address.
_REFUSED = re.compile(r"Connect to \w+#(\S+) failed: Connection refused")

#: What concerns a consumer group, and so nothing that a consumer does here.
_OF_GROUPS = frozenset(
    {
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    }
)

#: The same request may succeed a little later.
_PASSING = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._TRANSPORT,
        KafkaError._UNKNOWN_BROKER,
        KafkaError._WAIT_CACHE,
        KafkaError._WAIT_COORD,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.UNKNOWN_LEADER_EPOCH,
    }
)

#: Seconds for which a finding has to last before it is believed.
SURE_S = 10.0


# librdkafka logs every reconnection that it survives as an error: only who has set a level here gets to read them.
if _librdkafka_log.level == logging.NOTSET:
    _librdkafka_log.setLevel(logging.CRITICAL + 1)


class Errors:
    """Remember what librdkafka said last, for the question that gets no answer."""

    def __init__(self) -> None:
        self.last: KafkaError | None = None
        self.fatal: KafkaError | None = None
        #: Whether there ever was an answer to a question, or a broker has let us in.
        self.has_answered = False
        #: Brokers that most likely speak another protocol, as librdkafka calls them.
        self.foreign: set[str] = set()
        #: When something was said last, forgotten or not, on the clock of `time.monotonic`; long ago at first.
        self.heard_at = -math.inf
        self._first_at = self._fatal_at = 0.0

    def forget(self) -> None:
        """Start afresh: there was an answer, or another range begins."""
        self.last = self.fatal = None
        self.foreign.clear()

    def accepted(self) -> None:
        """Take note that a broker has let us in since: what an earlier connection was refused for has passed."""
        self.fatal, self.has_answered = None, True

    def log(self, level: int, form: str, *words: str) -> None:
        """Take a line of the log: a broker that hangs up on who comes the wrong way is no error to librdkafka.

        From one that has answered before, it means that the broker goes away.
        """
        _librdkafka_log.log(level, form, *words)
        if level >= logging.ERROR or self.has_answered:  # errors come by themselves
            return
        closed = KafkaError(KafkaError._TRANSPORT, words[-1])
        if is_of_protocol(closed):
            self(closed)

    def refusal_since(self, began: float) -> KafkaError | None:
        """Return what was refused for good, if that was after a moment on the clock of `time.monotonic`."""
        return self.fatal if self._fatal_at >= began else None

    def since(self, began: float) -> KafkaError | None:
        """Return what was said last, if that was after a moment on the clock of `time.monotonic`."""
        return self.last if self.heard_at >= began else None

    def lasts(self, now: float, began: float) -> float:
        """Return for how many seconds there have been errors since that moment, without an answer in between."""
        return now - max(self._first_at, began)

    def __call__(self, error: KafkaError) -> None:
        """Take one error event."""
        log.info("librdkafka: %s", error.str())
        self.heard_at = time.monotonic()
        if self.last is None:
            self._first_at = self.heard_at
        # "All brokers down" follows the reason that brought the last one down; the reason says more.
        if self.last is None or error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.last = error
        if is_of_protocol(error):
            self.foreign.add(error.str().partition(": ")[0])
        if is_refusal(error):
            self.fatal, self._fatal_at = error, self.heard_at


def is_of_groups(message: Message) -> bool:
    """Tell whether an event is about the coordinator of the group that a consumer names and never joins."""
    error = message.error()
    return error is not None and message.topic() is None and error.code() in _OF_GROUPS


def is_transient(error: KafkaError) -> bool:
    """Tell whether the same request may succeed a little later."""
    return bool(error.retriable()) or error.code() in _PASSING or _was_cut(error)


def is_refusal(error: KafkaError) -> bool:
    """Tell whether no retry helps against an error."""
    if _NO_TOKEN in error.str():  # librdkafka asks again: the server may be away, or broken, for a while
        return any(answer in error.str() for answer in _NO_SUCH_CLIENT)
    return error.code() in _FATAL and not _was_cut(error)


def is_of_protocol(error: KafkaError) -> bool:
    """Tell whether what is there was reached, and most likely speaks another protocol."""
    return _other_protocol(error.code(), error.str()) is not None


def broker_error(
    error: KafkaError, topic: str | None = None, partition: int | None = None, offset: int | None = None
) -> BrokerError:
    """Say a KafkaError in one line; one that may pass is a `BrokerUnavailableError`."""
    kind = BrokerUnavailableError if is_transient(error) else BrokerError
    detail = in_words(error)
    meaning = None if _NO_TOKEN in error.str() or _was_cut(error) else _refusal(error)
    return kind(f"{meaning} ({detail})" if meaning else detail, topic, partition, offset)


def librdkafka_version() -> str:
    """Return the version of the C library."""
    said = libversion()
    return str(said if isinstance(said, str) else said[0])  # confluent-kafka 2.12.0 says nothing but the text


def client_library() -> str:
    """Return the file that has the C library, or is linked with it."""
    return str(cimpl.__file__)


def in_words(error: KafkaError) -> str:
    """Say in one line what librdkafka says, or what it means where that tells a user nothing."""
    said = one_line(error.str())
    # "1/1 brokers are down" is all that is said of an address that is silent, or hangs up at once.
    if error.code() == KafkaError._ALL_BROKERS_DOWN:
        return "no connection comes about; it may be off, or the line to it cut or blocked"
    if said.startswith(_NO_TOKEN):
        return f"the identity server gave no token: {said.removeprefix(_NO_TOKEN)}"
    if error.code() == KafkaError._RESOLVE and (found := _UNRESOLVED.search(said)):
        return f"can't find {found[1]}: is this machine online, and the name right?"
    if error.code() == KafkaError._TRANSPORT and (found := _REFUSED.search(said)):
        return f"{found[1]} refuses the connection: is the port right, and Kafka running there?"
    if error.code() == KafkaError._UNSUPPORTED_FEATURE:
        return f"what answers there is a controller, or too old a Kafka ({said}): check the port"
    return _other_protocol(error.code(), said) or said


def _was_cut(error: KafkaError) -> bool:
    """Tell whether what looks like a refusal of a password is a line that was cut before the broker had said a word."""
    return (found := _HANDSHAKE.search(error.str())) is not None and found[1].startswith("Local")


def _other_protocol(code: int, said: str) -> str | None:
    """Say which protocol is most likely wanted, by that of a closed connection and how far it had come."""
    # The first letters of what a web server says, or of a TLS alert, are taken for the size of a response.
    if code == KafkaError._BAD_MSG and "APIVERSION_QUERY" in said:
        return f"what answers there is not Kafka, or wants another {parameter('security_protocol')}: check the port"
    found = _CLOSED.search(said)
    if found is None:
        return None
    protocol, state = (found[1] or "plaintext").upper(), found[2]
    off = "unless what it leads to is off"
    if state == "UP" and not has_sasl(protocol):
        others = parameter("security_protocol", "SASL_SSL" if has_tls(protocol) else "SASL_PLAINTEXT")
        return f"it hangs up on who does not say who they are: most likely it wants {others}, a user name and password"
    if state == "APIVERSION_QUERY" and not has_tls(protocol):
        others = parameter("security_protocol", "SASL_SSL" if has_sasl(protocol) else "SSL")
        other = "" if has_sasl(protocol) else ", or SASL_SSL with a user name and password"
        return f"it hangs up on what is not encrypted: most likely it wants {others}{other}, {off}"
    if state == "SSL_HANDSHAKE":
        others = parameter("security_protocol", "SASL_PLAINTEXT" if has_sasl(protocol) else "PLAINTEXT")
        return f"it hangs up where TLS begins: most likely it has none, and wants {others}, {off}"
    return None


def _refusal(error: KafkaError) -> str | None:
    """Say what is refused; of who we are, whether the broker has looked at the password at all."""
    found = _HANDSHAKE.search(error.str())
    if found is None:
        return _FATAL.get(error.code())
    if found[1] == _NOBODY_IS_ASKED:
        plain = parameter("security_protocol", "SSL" if "sasl_ssl://" in error.str() else "PLAINTEXT")
        return f"the broker asks nobody here who they are, and has not looked at the password: give {plain}"
    return f"the broker does not take this {parameter('sasl_mechanism')}, and has not looked at the password"


def client_config(settings: KafkaSettings, errors: Errors) -> dict[str, Any]:
    """Return the properties of every client; the password is among them, so they are neither shown nor logged."""
    config: dict[str, Any] = {
        "bootstrap.servers": settings.bootstrap_servers,
        "client.id": "fink-dask",
        "reconnect.backoff.max.ms": 2000,
        # A name can stand for several addresses, of which some do not answer; with TLS and SASL there are six round
        # trips before a connection is there. How long a response may take is left at librdkafka's minute.
        "socket.connection.setup.timeout.ms": 3_000 if settings.security.protocol == "PLAINTEXT" else 10_000,
        # Resolved anew before the next try, as after librdkafka's second, the list would begin with the same address.
        "broker.address.ttl": 60_000,
        "socket.keepalive.enable": True,
        "socket.nagle.disable": True,
        "security.protocol": settings.security.protocol,
        "error_cb": errors,
        "logger": errors,
    }
    security = settings.security
    if has_sasl(security.protocol):
        config |= {"sasl.mechanisms": security.mechanism, **_who_we_are(security)}
    if has_tls(security.protocol) and security.ca_pem is not None:
        config["ssl.ca.pem"] = security.ca_pem
    return config


def _who_we_are(security: Security) -> dict[str, Any]:
    """Return what proves it: a password, or how librdkafka gets tokens by itself, and new ones before they end."""
    if security.mechanism != OAUTHBEARER:
        return {"sasl.username": security.username, "sasl.password": security.password}
    found = {
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": security.token_url,
        "sasl.oauthbearer.client.id": security.username,
        "sasl.oauthbearer.client.secret": security.password,
    }
    if security.scope:
        found["sasl.oauthbearer.scope"] = security.scope
    if security.ca_pem is not None:
        found["https.ca.pem"] = security.ca_pem
    return found


class Debounce:
    """Remembers since when something looks wrong."""

    def __init__(self) -> None:
        self._finding: str | None = None
        self._since = 0.0

    def confirms(self, finding: str) -> bool:
        """Take a finding; True when it has been the same for long enough to be believed.

        `finding`: A word for what looks wrong, and not a sentence about it: that may hold a number, which changes with
        what a topic holds.
        """
        now = time.monotonic()
        if finding != self._finding:
            self._finding, self._since = finding, now
        return now - self._since > SURE_S

    def clear(self) -> None:
        """Forget it: all is well, or something else has happened."""
        self._finding = None
