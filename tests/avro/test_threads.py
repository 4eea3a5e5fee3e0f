"""Threads of a worker share what a schema is compiled into, and make it at the same moment."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from fink_dask.avro.decoder import ColumnarDecoder
from fink_dask.avro.schema import parse_schema
from tests.alerts.made_up import AlertKind, avro_schema, encoded_alerts
from tests.avro.oracle import assert_same
from tests.harness.topics import PATIENCE_S


@pytest.fixture
def restless() -> Iterator[None]:
    """Let threads take turns so often that each meets the others in the middle of everything."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_two_threads_that_ask_for_types_in_another_order_do_not_wait_for_each_other_for_ever() -> None:
    text = json.dumps(avro_schema(AlertKind.LSST_FULL))
    questions = [lambda record: record.arrow_fields, lambda record: record.arrow]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(12):
            records = [parse_schema(text).parsed for _ in questions]
            answers = [pool.submit(question, record) for question, record in zip(questions, records, strict=True)]
            fields, whole = (answer.result(timeout=PATIENCE_S) for answer in answers)
            assert pa.struct(fields) == whole


@pytest.mark.usefixtures("restless")
def test_threads_that_share_a_decoder_and_its_memory_each_get_their_own_rows() -> None:
    decoder = ColumnarDecoder(parse_schema(json.dumps(avro_schema(AlertKind.ZTF_LIGHT))))
    values = list(encoded_alerts(AlertKind.ZTF_LIGHT, 120))
    shares = [values[start : start + 20 + start] for start in range(0, 50, 10)]
    alone = [decoder.decode(share) for share in shares]
    with ThreadPoolExecutor(len(shares)) as pool:
        for _ in range(10):
            for one, other in zip(alone, pool.map(decoder.decode, shares), strict=True):
                assert_same(one, other)
