"""What librdkafka says becomes one line that a user can act on, and nothing else reaches the terminal."""

from __future__ import annotations

import json
import pickle
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from threading import Event, Timer
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from fink_dask.errors import BrokerError, BrokerUnavailableError, InterruptedTransferError, one_line
from fink_dask.kafka import admin as admin_module
from fink_dask.kafka import connection as connection_module
from fink_dask.kafka.admin import Admin
from fink_dask.kafka.confluent import Errors, broker_error, is_transient
from fink_dask.kafka.connection import Connection, open_connection
from fink_dask.settings import KafkaSettings
from tests.harness.kafka_settings import HOST, free_ports
from tests.harness.oracle import wait_for

SERVERS = "127.0.0.1:1"
SETTINGS = KafkaSettings(SERVERS, request_timeout_s=0.3)


class SilentClient:
    """Stands in where only the error callback matters: it says what librdkafka would, when it is polled."""

    def __init__(self, errors: Errors, *said: KafkaError) -> None:
        self._errors = errors
        self._said = list(said)

    def poll(self, timeout: float) -> None:
        assert timeout == 0
        if self._said:
            self._errors(self._said.pop(0))


Question = Callable[[Any], Future[Any]]


class ForgetfulErrors(Errors):
    """Another thread that asks through the same client gets an answer right after this one has looked."""

    def lasts(self, now: float, began: float) -> float:
        seconds = super().lasts(now, began)
        if seconds > SETTINGS.request_timeout_s:
            self.forget()
        return seconds


def fail_with(code: int, text: str | None = None) -> Question:
    def question(_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(KafkaException(KafkaError(code, text)))
        return future

    return question


def answer_with(answer: Any) -> Question:
    def question(_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(answer)
        return future

    return question


def silent_admin(*said: KafkaError, settings: KafkaSettings = SETTINGS) -> Admin:
    admin = Admin(settings)
    admin.client = SilentClient(admin.errors, *said)
    return admin


def ask_of(question: Question, *said: KafkaError) -> Any:
    return silent_admin(*said).ask(question, "topic")


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (KafkaError._AUTHENTICATION, "--username.*--password-file"),
        (KafkaError.SASL_AUTHENTICATION_FAILED, "--username.*--password-file"),
        (KafkaError._SSL, "--ssl-ca-file"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "credentials"),
    ],
)
@pytest.mark.parametrize("told_by", ["answer", "callback"])
def test_wrong_credentials_are_said_at_once_and_not_as_a_broker_that_is_away(
    code: int, meaning: str, told_by: str
) -> None:
    refusal = KafkaError(code, "SASL\nfailed")
    question = fail_with(code, "SASL\nfailed") if told_by == "answer" else fail_with(KafkaError._TRANSPORT)
    with pytest.raises(BrokerError, match=meaning) as caught:
        ask_of(question, *([refusal] if told_by == "callback" else []))
    assert caught.value.topic == "topic"
    assert "SASL failed" in str(caught.value)
    assert not caught.value.transient


def test_a_line_that_is_cut_as_the_mechanism_is_agreed_on_is_no_refusal_of_the_password() -> None:
    said = "a:1/bootstrap: SASL SCRAM-SHA-512 mechanism handshake failed: {}: broker's supported mechanisms: (n/a)"
    cut = KafkaError(KafkaError._AUTHENTICATION, said.format("Local: Broker transport failure"))
    with pytest.raises(BrokerUnavailableError) as caught:
        ask_of(fail_with(KafkaError._TRANSPORT), cut)
    assert "credentials" not in str(caught.value)
    with pytest.raises(BrokerError, match="--sasl-mechanism"):
        ask_of(fail_with(KafkaError._AUTHENTICATION, said.format("Broker: Unsupported SASL mechanism")))


def test_a_broker_that_has_answered_and_hangs_up_goes_away_and_wants_no_other_protocol() -> None:
    errors = Errors()
    closed = "127.0.0.1:1/1: Disconnected: connection closed by peer (after 5ms in state UP)"
    errors.has_answered = True
    errors.log(20, "%s [%s] %s", "FAIL", "client", closed)
    assert errors.last is None
    errors.has_answered = False
    errors.log(20, "%s [%s] %s", "FAIL", "client", closed)
    assert errors.last is not None
    errors.has_answered, admin = True, Admin(SETTINGS)
    admin.errors = errors
    with open_connection(SETTINGS, admin=admin) as reader:  # which comes later, as it goes away
        reader.errors.log(20, "%s [%s] %s", "FAIL", "client", closed.replace("UP", "APIVERSION_QUERY"))
        assert reader.errors.last is None


class ScriptedClient:
    """Takes a step each time it is polled."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self.steps = [*steps]

    def poll(self, timeout: float) -> None:
        assert timeout == 0
        if self.steps:
            self.steps.pop(0)()


def hang_up(admin: Admin, server: str) -> Callable[[], None]:
    said = f"{server}/bootstrap: Disconnected: connection closed by peer (after 5ms in state APIVERSION_QUERY)"
    return lambda: admin.errors(KafkaError(KafkaError._TRANSPORT, said))


def nothing() -> None:
    pass


def test_a_far_line_that_is_cut_as_it_is_connected_is_not_taken_for_another_protocol(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admin_module, "_FOREIGN_S", 0.0)  # so that a tenth of a second is far
    admin, answer = Admin(KafkaSettings(SERVERS, request_timeout_s=60)), Future[str]()
    steps = (*[nothing] * 4, hang_up(admin, SERVERS), *[nothing] * 3, lambda: answer.set_result("answer"))
    admin.client = ScriptedClient(*steps)
    assert admin.ask(lambda _: answer) == "answer"


def test_one_of_several_servers_that_hangs_up_does_not_speak_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_module, "_FOREIGN_S", 0.0)
    monkeypatch.setattr(admin_module, "_FOREIGN_TIMES", 0)
    admin = Admin(KafkaSettings("127.0.0.1:1,127.0.0.1:2", request_timeout_s=60))
    client = ScriptedClient(hang_up(admin, "127.0.0.1:1"), *[nothing] * 3, hang_up(admin, "127.0.0.1:2"))
    admin.client = client
    with pytest.raises(BrokerUnavailableError, match="--security-protocol"):
        admin.ask(lambda _: Future[str]())
    assert not client.steps


def test_a_refusal_is_not_asked_again() -> None:
    asked = []

    def question(client: Any) -> Future[Any]:
        asked.append(client)
        return fail_with(KafkaError.INVALID_REQUEST)(client)

    with pytest.raises(BrokerError):
        ask_of(question)
    assert len(asked) == 1


def test_an_answer_after_hiccups_is_an_answer() -> None:
    said = iter([fail_with(KafkaError._TRANSPORT), fail_with(KafkaError.LEADER_NOT_AVAILABLE), answer_with("answer")])

    def question(client: Any) -> Future[Any]:
        return next(said)(client)

    assert ask_of(question) == "answer"


def test_many_questions_are_asked_again_where_the_connection_broke_and_a_refusal_is_told_beside_the_answers() -> None:
    said = iter([KafkaError._TRANSPORT, KafkaError.UNKNOWN_TOPIC_OR_PART])

    def question(client: Any) -> dict[str, Future[Any]]:
        return {"a": answer_with(1)(client), "b": fail_with(next(said))(client)}

    found = silent_admin().begin(question)()
    assert found["a"] == 1
    assert found["b"].code() == KafkaError.UNKNOWN_TOPIC_OR_PART


class LostClient:
    """Waits for a broker that is gone, until it has listed the topics."""

    def __init__(self, errors: Errors) -> None:
        self._errors = errors
        self.answer: Any = None

    def poll(self, timeout: float) -> None:
        assert timeout == 0
        self._errors(KafkaError(KafkaError._TRANSPORT, "connection refused"))
        self._errors.forget()  # another thread had its answer, from a broker that is there

    def list_topics(self, topic: str | None, timeout: float) -> None:
        assert topic is None  # who leads them has changed as well
        assert timeout > 0
        self.answer = "answer"


def test_where_a_broker_is_gone_the_others_are_asked_who_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_module, "_LOST_S", 0.05)
    admin = Admin(KafkaSettings(SERVERS, request_timeout_s=60))
    admin.client = LostClient(admin.errors)

    def question(client: Any) -> dict[str, Future[Any]]:
        return {"a": answer_with(client.answer)(client) if client.answer else Future()}

    assert admin.begin(question)() == {"a": "answer"}


def test_an_answer_that_is_slow_is_waited_for_and_one_of_a_kafka_that_is_not_reached_is_not() -> None:
    slow: Future[Any] = Future()
    Timer(0.5, slow.set_result, ["answer"]).start()
    patient = KafkaSettings(SERVERS, request_timeout_s=60)
    assert silent_admin(settings=patient).ask(lambda _: slow, "topic") == "answer"
    unreached = silent_admin(KafkaError(KafkaError._RESOLVE, "Failed to resolve 'kafka.example:9092'"))
    with pytest.raises(BrokerUnavailableError, match=r"kafka\.example\b"):
        unreached.ask(lambda _: Future(), "topic")


def test_no_answer_names_the_servers_and_the_reason_behind_all_brokers_being_down() -> None:
    with pytest.raises(BrokerUnavailableError) as caught:
        ask_of(
            fail_with(KafkaError._TRANSPORT),
            KafkaError(KafkaError._RESOLVE, "Failed to resolve 'kafka.example:9092'"),
            KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"),
        )
    assert SERVERS in str(caught.value)
    assert "kafka.example" in str(caught.value)
    assert caught.value.transient


@pytest.mark.parametrize(
    ("code", "said", "expected"),
    [
        (KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down", "blocked"),
        (
            KafkaError._BAD_MSG,  # of a web server
            "Receive failed: Invalid response size 1213486160 (0..100000000): increase receive.message.max.bytes "
            "(after 0ms in state APIVERSION_QUERY)",
            "not Kafka.*--security-protocol",
        ),
        (
            KafkaError._TRANSPORT,
            "kafka:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)",
            r"127\.0\.0\.1:1 .*port",
        ),
        (KafkaError._BAD_MSG, "Receive failed: Invalid response size 200000000 (after 9ms in state UP)", "200000000"),
    ],
)
def test_an_address_that_is_silent_or_is_not_of_kafka_is_said_to_be_so(code: int, said: str, expected: str) -> None:
    with pytest.raises(BrokerUnavailableError, match=SERVERS) as caught:
        ask_of(fail_with(KafkaError._TRANSPORT), KafkaError(code, said))
    assert re.search(expected, str(caught.value))


def test_a_refusal_before_the_last_answer_is_not_why_the_broker_is_silent_now() -> None:
    admin = silent_admin(KafkaError(KafkaError._SSL, "handshake failed while the broker started"))
    assert admin.ask(answer_with("answer"), "topic") == "answer"
    with pytest.raises(BrokerUnavailableError) as caught:
        admin.ask(fail_with(KafkaError._TRANSPORT, "connection refused"), "topic")
    assert "handshake" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "passing"),
    [
        (KafkaError._TRANSPORT, True),
        (KafkaError.NOT_COORDINATOR, True),
        (KafkaError.COORDINATOR_LOAD_IN_PROGRESS, True),
        (KafkaError.NOT_LEADER_FOR_PARTITION, True),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, False),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, False),
        (KafkaError._AUTHENTICATION, False),
        (KafkaError._LOG_TRUNCATION, False),
    ],
)
def test_only_what_may_pass_is_tried_again(code: int, passing: bool) -> None:
    error = broker_error(KafkaError(code), "topic", 3, 17)
    assert is_transient(KafkaError(code)) is passing
    assert error.transient is passing
    assert str(error).startswith("topic[3] at offset 17: ")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_text_from_outside_stays_one_line_of_bounded_length() -> None:
    assert one_line("a\n b\t\r\nc") == "a b c"
    assert len(one_line("x" * 10_000)) == 300


def test_a_value_that_librdkafka_refuses_is_an_error_of_ours() -> None:
    with pytest.raises(BrokerError, match=r"fetch\.message\.max\.bytes"), open_connection(SETTINGS, fetch_bytes=-1):
        pass


PROGRAM = """
import logging, sys
logging.basicConfig(level=logging.WARNING)
if sys.argv[2] == "asked":
    logging.getLogger("fink_dask.kafka.librdkafka").setLevel(logging.INFO)
from fink_dask.settings import KafkaSettings
from fink_dask.errors import BrokerUnavailableError
from fink_dask.kafka.inspect import open_inspector
from fink_dask.kafka.admin import Admin
from fink_dask.kafka.inspect import ask_topic_id
settings = KafkaSettings(sys.argv[1], request_timeout_s=1.5)
for asks in (lambda: ask_topic_id(Admin(settings), "topic"), lambda: inspector.describe("topic")):
    with open_inspector(settings) as inspector:
        try:
            asks()
        except BrokerUnavailableError as error:
            print(error)
"""


@pytest.mark.parametrize("asked", [False, True])
def test_the_log_of_librdkafka_is_on_the_terminal_only_when_asked_for(asked: bool) -> None:
    arguments = [f"127.0.0.1:{free_ports(1)[0]}", "asked" if asked else "not"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=300, check=True
    )
    assert len(done.stdout.splitlines()) == 2
    assert ("Connection refused" in done.stderr) is asked
    if not asked:
        assert done.stderr == ""


def test_an_answer_to_another_thread_does_not_break_the_one_that_still_waits() -> None:
    admin = Admin(SETTINGS)
    admin.errors = ForgetfulErrors()
    admin.client = SilentClient(admin.errors, *[KafkaError(KafkaError._TRANSPORT, "gone")] * 100)
    with pytest.raises(BrokerUnavailableError, match="gone"):
        admin.ask(lambda _: Future())


class SlowConsumer:
    """Its broker does not answer; what librdkafka does where it is closed meanwhile ends the process."""

    def __init__(self) -> None:
        self.answers = Event()
        self.closed = Event()

    def list_topics(self, topic: str, timeout: float) -> Any:
        assert self.answers.wait(20)
        assert not self.closed.is_set()
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    def close(self) -> None:
        self.closed.set()


def test_a_connection_is_not_closed_under_a_question_that_nobody_waits_for_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "_LEARN_S", 0.01)
    connection = Connection(SETTINGS)
    connection.consumer.close()
    connection.consumer = consumer = SlowConsumer()
    connection.learn("topic")
    connection.close()
    assert not consumer.closed.is_set()
    consumer.answers.set()
    wait_for(consumer.closed.is_set, "the end")


def test_a_stop_does_not_wait_for_a_broker_that_does_not_say_where_a_topic_is() -> None:
    def stop() -> None:
        raise InterruptedTransferError("stopped")

    connection = Connection(SETTINGS)
    connection.consumer.close()
    connection.consumer = consumer = SlowConsumer()
    with pytest.raises(InterruptedTransferError):
        connection.learn("topic", stop)
    assert not consumer.answers.is_set()
    consumer.answers.set()
    connection.close()


def test_a_quota_that_held_a_range_back_is_known_to_whoever_looks_later() -> None:
    with open_connection(SETTINGS) as connection:
        for milliseconds in (0, 2000, 500, 0):  # each of the last half second
            connection._state(json.dumps({"brokers": {"kafka:9092/1": {"throttle": {"sum": milliseconds}}}}))
        assert connection.arrived.throttled_s == 2.5


def test_a_name_that_stands_for_no_address_is_said_in_plain_words() -> None:
    # The server of this admin client is an address: what is looked up is the name that it was made for.
    settings = KafkaSettings("kafka.nowhere.invalid:9092", request_timeout_s=60)
    said = "kafka.nowhere.invalid:9092/bootstrap: Failed to resolve 'kafka.nowhere.invalid:9092': Name not known"
    unresolved = KafkaError(KafkaError._RESOLVE, said)
    with pytest.raises(BrokerUnavailableError, match=r"kafka\.nowhere\.invalid\b.*online") as caught:
        silent_admin(unresolved, settings=settings).ask(lambda _: Future())
    assert "resolve" not in str(caught.value)


def test_a_server_whose_name_is_wrong_does_not_end_the_wait_for_the_next_one() -> None:
    # Written as a user may: with a space, and without the port.
    settings = KafkaSettings("kafka.nowhere.invalid:9092, 127.0.0.1", request_timeout_s=60)
    unresolved = KafkaError(KafkaError._RESOLVE, "Failed to resolve 'kafka.nowhere.invalid:9092': Name not known")
    answer: Future[str] = Future()
    Timer(1.0, answer.set_result, ["an id"]).start()  # after the names were looked up, most likely
    assert silent_admin(unresolved, settings=settings).ask(lambda _: answer) == "an id"


@pytest.mark.parametrize(("living", "dead"), [(1, 2), (0, 2), (2, 0)])
def test_a_name_with_a_dead_address_is_waited_for_longer_where_another_address_lives(
    living: int, dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = KafkaSettings("kafka.test:9092", request_timeout_s=2)
    answer: Future[str] = Future()
    with socket.create_server((HOST, 0)) as door, socket.create_server((HOST, 0)) as other:
        ports = [each.getsockname()[1] for each in (door, other)[:living]] + free_ports(2)[:dead]
        places = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (HOST, port)) for port in ports]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: places)
        Timer(settings.request_timeout_s + 0.5, answer.set_result, ["an id"]).start()
        admin = silent_admin(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"), settings=settings)
        if living and dead:
            assert admin.ask(lambda _: answer) == "an id"
        else:
            with pytest.raises(BrokerUnavailableError):
                admin.ask(lambda _: answer)


def test_what_is_said_to_a_client_that_nobody_asks_is_let_go_with_the_next_question() -> None:
    # A cluster that is away for a night says so three times a second, to each process that waits for it.
    admin = Admin(SETTINGS)
    wait_for(lambda: len(admin.client) > 3, "what nobody has heard")

    def is_heard() -> bool:
        with pytest.raises(BrokerUnavailableError):
            admin.ask(lambda client: client.describe_cluster(request_timeout=0.2))
        return len(admin.client) == 0

    wait_for(is_heard, "an empty queue")
