"""The links that are measured, written down before any of them was: from a phone to a computing centre."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.fill import SERVER_BATCH_BYTES
from tests.alerts.made_up import AlertKind

#: Bytes of an alert with what Kafka adds, to say how many make so many megabytes.
_ALERT_BYTES = {AlertKind.ZTF_LIGHT: 1_100, AlertKind.ZTF_FULL: 53_700, AlertKind.LSST_FULL: 139_400}
LIGHT, ZTF, LSST = AlertKind.ZTF_LIGHT, AlertKind.ZTF_FULL, AlertKind.LSST_FULL
PARTS = 4


@dataclass(frozen=True)
class Row:
    """A link, and what is carried over it."""

    name: str
    #: The rate in 10^6 bits a second, each way, for all connections together.
    mbit: float
    #: How long it takes to hear back.
    round_trip_ms: float
    #: The share of packets that are lost.
    loss: float
    #: How many read at once, whoever reads.
    consumers: int
    kind: AlertKind
    #: About how many of them there are.
    megabytes: float
    #: Of the benchmark, from 1.
    part: int
    #: Of a batch of records, which Kafka keeps as it came; Spark's producer, which Fink uses, makes them of 16 kB.
    batch_bytes: int = SERVER_BATCH_BYTES

    @property
    def alerts(self) -> int:
        """How many alerts there are."""
        return round(self.megabytes * 1e6 / _ALERT_BYTES[self.kind])

    @property
    def topic(self) -> str:
        """Name of the topic, which rows with the same alerts share."""
        survey = self.kind.value.partition("-")[0]
        kind = 1 + list(_ALERT_BYTES).index(self.kind)
        return f"ftransfer_{survey}_2026-02-24_{kind}{self.batch_bytes // 1000:04}{self.alerts:07}"

    @property
    def has_packets(self) -> bool:
        """Whether it needs network namespaces, where packets are lost, handshakes take their time, and windows grow.

        The proxy carries all other rows: it is the only one that is fast enough for some, and the same for all.
        """
        return self.loss > 0 or self.round_trip_ms >= 600

    @property
    def limit_s(self) -> float:
        """Seconds after which a contestant is stopped."""
        return 150 + 6 * self.megabytes * 8 / self.mbit

    @property
    def line(self) -> str:
        """The link in words."""
        lost = f", {100 * self.loss:g} % lost" if self.loss else ""
        return f"{self.mbit:g} Mbit/s, {self.round_trip_ms:g} ms{lost}"


ROWS = (
    # What was reported when everything had been measured on loopback only, with the batches that it was measured with.
    Row("reported: 4 consumers", 8, 20, 0, 4, LIGHT, 16.6, 1, 10**6),
    Row("reported: 8 consumers", 20, 40, 0, 8, LIGHT, 41, 1, 10**6),
    Row("reported: 16 consumers", 100, 100, 0, 16, LIGHT, 103, 1, 10**6),
    Row("phone", 2, 60, 0, 2, LIGHT, 5, 1),
    Row("phone, many consumers", 2, 60, 0, 32, LIGHT, 5, 1),
    Row("hotel", 4, 100, 0, 4, LIGHT, 8, 1),
    Row("home, 1 consumer", 8, 20, 0, 1, LIGHT, 16.6, 2),
    Row("home, 32 consumers", 8, 20, 0, 32, LIGHT, 16.6, 2),
    Row("home, full packets", 8, 20, 0, 4, ZTF, 16, 2),
    Row("home, LSST", 8, 20, 0, 4, LSST, 16, 2),
    Row("DSL, full packets", 20, 40, 0, 2, ZTF, 40, 2),
    Row("DSL, LSST, many consumers", 20, 40, 0, 32, LSST, 40, 2),
    Row("DSL, 16 consumers", 20, 40, 0, 16, LIGHT, 41, 2),
    Row("across an ocean", 100, 100, 0, 4, LIGHT, 103, 3),
    Row("across an ocean, full packets", 100, 150, 0, 16, ZTF, 150, 3),
    Row("across an ocean, LSST", 100, 150, 0, 32, LSST, 150, 3),
    Row("far campus", 300, 150, 0, 8, LIGHT, 300, 3),
    Row("campus", 1000, 1, 0, 2, LIGHT, 600, 3),
    Row("campus, full packets", 1000, 20, 0, 8, ZTF, 1000, 3),
    Row("computing centre, LSST", 1000, 200, 0, 32, LSST, 1000, 3),
    Row("satellite", 20, 600, 0, 4, LIGHT, 20, 4),
    Row("satellite, full packets", 10, 600, 0, 16, ZTF, 16, 4),
    Row("ship, 1 consumer", 5, 1000, 0, 1, LIGHT, 4, 4),
    Row("ship, 32 consumers", 5, 1000, 0, 32, LIGHT, 4, 4),
    Row("hotel that loses packets", 4, 100, 0.01, 4, LIGHT, 8, 4),
    Row("wireless that loses packets", 20, 30, 0.01, 8, LIGHT, 20, 4),
    Row("ocean that loses packets", 100, 100, 0.01, 16, LIGHT, 41, 4),
)
