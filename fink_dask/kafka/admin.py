"""What a broker is asked through, and how long an answer is waited for."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, TypeVar

from fink_dask.errors import BrokerUnavailableError
from fink_dask.kafka.confluent import (
    AdminClient,
    Errors,
    KafkaError,
    KafkaException,
    broker_error,
    client_config,
    in_words,
    is_of_protocol,
    is_refusal,
    is_transient,
)
from fink_dask.settings import KafkaSettings

Answer = TypeVar("Answer")
Key = TypeVar("Key")

#: Seconds between two looks at what else happens while an answer is waited for, such as a signal.
LOOK_S = 0.1
#: Seconds for which a question goes on after librdkafka has said that it does not reach a broker: another address, or
#: the same one a moment later, may answer. It connects twice before it asks, to the address that it was given and to
#: the broker that this names, in three round trips each, or eight with TLS and SASL; behind two satellites each takes a
#: second.
_UNREACHED_S, _UNREACHED_SECURED_S = 12.0, 24.0
#: All that librdkafka says where an address is silent.
_SILENT_ADDRESS = KafkaError._ALL_BROKERS_DOWN
#: How many times its time a question has where the names of silent servers stand for several addresses, and some let
#: themselves be connected to, but not all: where all do, no draw helps. Since 2.10, who reaches no server begins anew,
#: and draws the address by lot, once for the server and once for the broker that this names (`rd_kafka_rebootstrap`):
#: with one that is dead of two, each try is right once in four times, and takes three seconds, or ten with TLS or SASL.
#: With metadata.recovery.strategy=none they would take turns; but a client that hears of no broker, as from one that is
#: fenced for a moment, would have none left, for ever (`rd_kafka_metadata_decommission_unavailable_brokers`).
_DRAWN_TIMES = 3
#: Seconds in which an address lets itself be connected to, and how many are tried.
_CONNECT_S, _MOST_ADDRESSES = 3.0, 16
#: Seconds without an answer, where a connection fails and where none does, after which an admin client is to find out
#: who is there.
_LOST_S, _SILENT_S = 3.0, 8.0
#: Seconds for which librdkafka does not say again what a connection fails of.
_SAID_ONCE_S = 30.0
#: How long a question goes on where a broker has refused for good, as it may still be starting; and where it speaks
#: another protocol.
_REFUSED_S, _FOREIGN_S = 1.0, 3.0
#: Or for so many times what that has taken to come out: a far line that was cut, and looks like it, is tried once more.
_FOREIGN_TIMES = 3
#: Seconds for which one of several questions is asked again where a broker says what may pass, such as that it does not
#: lead a partition any more, or not yet.
SETTLES_S = 5.0
#: No topic can have this name, so that a broker that is asked for it creates none, and says no more than who is there.
_NO_TOPIC = "."
#: What librdkafka says where a question got no answer.
_SILENT = {KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN}


class Admin:
    """An admin client, for questions; any thread may ask.

    librdkafka waits for the one broker that it takes for the controller, or for a leader, and asks no other one. An
    admin client follows no topic, so that it hears of another one only every five minutes; and as long as a question
    waits, it connects as soon as it was refused, 10,000 times a second and more: each try has the question look again,
    which takes the pause before the next one away (`RD_KAFKA_OP_CONNECT` in
    https://github.com/confluentinc/librdkafka/blob/master/src/rdkafka_broker.c). No property changes that, but any
    broker says who is there. So it is where the broker that was asked first had been fenced for a moment, and named no
    controller: librdkafka does not look again, although none of its connections fails
    (`rd_kafka_broker_controller_async` there).
    """

    def __init__(self, settings: KafkaSettings) -> None:
        # How to reach Kafka.
        self.settings = settings
        self.errors = Errors()
        self.client = AdminClient(client_config(settings, self.errors))
        self._lock = threading.Lock()
        self._learning: Future[None] | None = None

    def ask(self, question: Callable[[AdminClient], Future[Answer]], topic: str | None = None) -> Answer:
        """Ask, and wait for the answer in a way that lets signals through at once.

        `question`: takes the client and returns a future that is bounded by `request_timeout_s`.
        `topic`: what the question is about, for the error.
        Raises BrokerError if the answer is no.
        Raises BrokerUnavailableError if there is no answer in time.
        """
        return _AdminWait(self, topic).ask(lambda: question(self.client))

    def ask_each(self, question: Callable[[AdminClient], Mapping[Key, Future[Answer]]]) -> dict[Key, Answer | None]:
        """Ask about many things at once, and wait for all answers.

        `question`: takes the client and returns a future for each, which are bounded by `request_timeout_s`.
        Returns: the answers; None where the broker can't or won't say.
        Raises BrokerUnavailableError if there is no answer in time.
        """
        return {
            key: None if isinstance(answer, KafkaError) else answer for key, answer in self.begin(question)().items()
        }

    def begin(
        self, question: Callable[[AdminClient], Mapping[Key, Future[Answer]]]
    ) -> Callable[[], dict[Key, Answer | KafkaError]]:
        """Ask about many things at once, and do not wait yet.

        Returns: waits for the answers, and returns what the broker refuses as a KafkaError, once it has refused it for
        a few seconds if that may pass; it raises a BrokerUnavailableError if there is no answer in time.
        """
        wait, asked = _AdminWait(self, asks_again=True), question(self.client)

        def answer() -> dict[Key, Answer | KafkaError]:
            futures = asked
            while True:
                found: dict[Key, Answer | KafkaError] = {}
                for key, future in futures.items():
                    found[key] = one = wait.answer_or_refusal(future)
                    if isinstance(one, KafkaError) and wait.may_be_answered(one):
                        wait.pause(one)
                        futures = question(self.client)
                        break
                else:
                    wait.end()
                    return found

        return answer

    def learn(self, leaders: bool = True) -> Future[None]:
        """Begin to find out who is there, from whichever broker answers; who waits for the controller gets on then.

        `leaders`: find out who leads what as well, which a slow line may be long in saying.
        """

        def learn() -> None:
            with suppress(KafkaException):
                self.client.list_topics(None if leaders else _NO_TOPIC, timeout=_UNREACHED_S)

        with self._lock:
            if self._learning is None or self._learning.done():
                self._learning = in_background(learn)
            return self._learning


def in_background(function: Callable[[], Answer]) -> Future[Answer]:
    """Call a function that blocks in a thread of its own, so that signals are seen meanwhile.

    A pool would be waited for when the program ends, and an answer may never come.
    """
    future: Future[Answer] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="fink-dask-ask", daemon=True).start()
    return future


@dataclass(frozen=True)
class _Addresses:
    """What the names of the servers stand for; at first, what is assumed as long as nobody knows."""

    #: Whether there are any.
    are_there: bool = True
    #: Whether some of a name's several let themselves be connected to, and others do not.
    are_mixed: bool = False


def _look_up(servers: Sequence[tuple[str, int]]) -> _Addresses:
    """Look up names as librdkafka does, and try the addresses of those that stand for several."""
    found = [_resolve(*server) for server in servers]
    several = chain.from_iterable(each for each in found if len(each) > 1)
    tries = [in_background(partial(_lets_in, address)) for address in islice(several, _MOST_ADDRESSES)]
    return _Addresses(any(found), len({each.result() for each in tries}) > 1)


def _resolve(host: str, port: int) -> list[tuple[Any, ...]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except (OSError, UnicodeError):
        return []
    return list({each[-1]: each for each in found}.values())


def _lets_in(address: tuple[Any, ...]) -> bool:
    family, kind, protocol, _, place = address
    try:
        with socket.socket(family, kind, protocol) as caller:
            caller.settimeout(_CONNECT_S)
            caller.connect(place)
    except OSError:
        return False
    return True


class AnswerWait:
    """Waits for a client's answers in short steps: what its callback says meanwhile can end the wait."""

    def __init__(
        self, settings: KafkaSettings, errors: Errors, serve: Callable[[float], object], topic: str | None = None
    ) -> None:
        # How Kafka is reached.
        self._settings = settings
        # What librdkafka says meanwhile.
        self._errors = errors
        # Has librdkafka call its callbacks; takes seconds to wait for one.
        self._serve = serve
        # What is asked about, for the error.
        self._topic = topic
        self._began = time.monotonic()
        self._lookup: Future[_Addresses] | None = None

    def ask(self, question: Callable[[], Future[Answer]]) -> Answer:
        """Ask until there is an answer, or it is clear that none will come; see `Admin.ask`."""
        while True:
            try:
                answer = self._result(question())
            except KafkaException as exception:
                self._serve(0)
                self.pause(self._errors.refusal_since(self._began) or exception.args[0])
            else:
                self.end()
                return answer

    def answer_or_refusal(self, future: Future[Answer]) -> Answer | KafkaError:
        """Wait for one of several answers."""
        try:
            return self._result(future)
        except KafkaException as exception:
            error: KafkaError = exception.args[0]
            return error

    def may_be_answered(self, error: KafkaError) -> bool:
        """Tell whether one of several questions is worth asking again."""
        if error.code() in _SILENT:
            return True
        # All the others wait for it, so that what lasts is left to who asks.
        return is_transient(error) and time.monotonic() - self._began < SETTLES_S

    def pause(self, error: KafkaError) -> None:
        """Pause before the question is asked once more, or raise if there is no use or no time left."""
        self._serve(0)
        if error.code() == KafkaError._UNSUPPORTED_FEATURE:
            raise self._no_answer(error)
        if not is_transient(error):
            raise broker_error(error, self._topic)
        last = self._errors.since(self._began)
        if time.monotonic() - self._began > self._bound_s(last) or self._final_reason() is not None:
            raise self._no_answer(last or error)
        time.sleep(LOOK_S)

    def end(self) -> None:
        """Forget what was said until now: it must not be the reason for a silence hours later."""
        self._serve(0)
        self._errors.forget()
        self._errors.has_answered = True

    def _result(self, future: Future[Answer]) -> Answer:
        while True:
            try:
                return future.result(timeout=LOOK_S)
            except TimeoutError:
                self._serve(0)
            if (reason := self._final_reason()) is not None:
                raise broker_error(reason, self._topic) if is_refusal(reason) else self._no_answer(reason)
            if self._is_outdated():
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    def _is_outdated(self) -> bool:
        """Tell whether the question is to be asked again, as it was asked of a broker that may be gone."""
        return False

    def _final_reason(self) -> KafkaError | None:
        """Return why no answer will come, or None as long as one may."""
        # Each is read once: another thread's answer may have them forgotten at any moment.
        fatal, last = self._errors.refusal_since(self._began), self._errors.since(self._began)
        if last is None:
            return None
        # A name that was right a moment ago is waited for: it is the line that is cut.
        if last.code() == KafkaError._RESOLVE and not self._errors.has_answered and not self._addresses().are_there:
            return last
        unreached_s = self._unreached_s(last)
        bound_s = _REFUSED_S if fatal is not None else unreached_s
        now = time.monotonic()
        lasts_s = self._errors.lasts(now, self._began)
        # As long as one of several servers has not said so, it may be right, and just slower to answer.
        is_foreign = len(self._errors.foreign) >= len(self._settings.servers)
        if fatal is None and is_of_protocol(last) and not self._errors.has_answered and is_foreign:
            bound_s = min(max(_FOREIGN_S, _FOREIGN_TIMES * (now - self._began - lasts_s)), unreached_s)
        return (fatal or last) if lasts_s > bound_s else None

    def _bound_s(self, last: KafkaError | None) -> float:
        """Return how long an answer is waited for, whatever is said meanwhile."""
        return self._settings.request_timeout_s * (_DRAWN_TIMES if self._is_drawn(last) else 1)

    def _unreached_s(self, last: KafkaError) -> float:
        """Return how long the question goes on where no server is reached."""
        if self._is_drawn(last):
            return self._bound_s(last)
        is_plain = self._settings.security.protocol == "PLAINTEXT"
        return min(_UNREACHED_S if is_plain else _UNREACHED_SECURED_S, self._settings.request_timeout_s)

    def _is_drawn(self, last: KafkaError | None) -> bool:
        """Tell whether another draw of a server's address may be right."""
        return last is not None and last.code() == _SILENT_ADDRESS and self._addresses().are_mixed

    def _addresses(self) -> _Addresses:
        """Return what the names of the servers stand for, as far as it is known."""
        if self._lookup is None:
            self._lookup = in_background(lambda: _look_up(self._settings.servers))
        # A machine may have no thread left to try them in.
        is_known = self._lookup.done() and self._lookup.exception() is None
        return self._lookup.result() if is_known else _Addresses()

    def _no_answer(self, reason: KafkaError) -> BrokerUnavailableError:
        where = f"{self._settings.bootstrap_servers} in {time.monotonic() - self._began:.0f} s"
        return BrokerUnavailableError(f"no answer from Kafka at {where}: {in_words(reason)}", self._topic)


class _AdminWait(AnswerWait):
    """Waits for an admin client's answers, and has the client find out who is there where a broker may be gone.

    `asks_again`: ask again then. What waits for a leader waits for the one that it was sent to.
    """

    def __init__(self, admin: Admin, topic: str | None = None, asks_again: bool = False) -> None:
        super().__init__(admin.settings, admin.errors, admin.client.poll, topic)
        self._admin = admin
        self._asks_again = asks_again
        self._learning: Future[None] | None = None
        # Whether a connection failed when it began to.
        self._fails = False
        # How long it is waited before the next time, as the others may not know yet; and since when.
        self._lost_s, self._since = _LOST_S, self._began

    def pause(self, error: KafkaError) -> None:
        """Pause, and have the client find out who leads what, as it has asked who does not.

        It finds out by itself only where it is told that a broker leads no longer, and not where that one leads again:
        its epoch is another one then, and the one that the client says is refused, for up to a quarter of an hour. See
        `rd_kafka_admin_result_err_refresh` in
        https://github.com/confluentinc/librdkafka/blob/master/src/rdkafka_admin.c.
        """
        super().pause(error)
        if error.code() not in _SILENT:
            wait([self._admin.learn()], timeout=_LOST_S)

    def _is_outdated(self) -> bool:
        now = time.monotonic()
        if self._learning is not None:
            if not self._learning.done():
                return False
            self._learning, self._lost_s, self._since = None, 2 * self._lost_s, now
            # Where no connection fails, an answer may be on its way, or the question waits for what is known now.
            return self._asks_again and self._fails
        # Said or not since this was asked: another thread's answer does not mean that this one's broker is there.
        self._fails = self._errors.heard_at > self._began - _SAID_ONCE_S
        if now - self._since > max(self._lost_s, 0 if self._fails else _SILENT_S):
            self._learning = self._admin.learn(leaders=self._fails)
        return False
