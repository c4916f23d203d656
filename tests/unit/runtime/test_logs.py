"""Log records as lines of text and JSON, and the records of an outage."""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime, timedelta
from typing import Any

import pytest

from provgate_runtime.json_log import JsonLineFormatter
from provgate_runtime.logs import TextFormatter
from provgate_runtime.outage import Outage

logger = logging.getLogger(__name__)

FORGED = "refused\n2026-11-24 12:00:00,000 ERROR provgate_workers.consume.host[1] package.deadletter: forged"


def record(message: str, *arguments: object, error: BaseException | None = None, **fields: object) -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__) if error is not None else None
    return logging.getLogger("provgate_test").makeRecord(
        "provgate_test", logging.WARNING, __file__, 1, message, arguments, exc_info, extra=dict(fields)
    )


def raised(message: str) -> BaseException:
    try:
        raise ValueError(message)
    except ValueError as error:
        return error


def test_text_has_the_action() -> None:
    line = TextFormatter().format(record("queue %s", "a", action="broker.consume"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \S+ WARNING provgate_test\[\d+\] broker\.consume: queue a", line)


def test_text_of_a_library_has_no_action() -> None:
    assert TextFormatter().format(record("hello")).endswith("] -: hello")


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_no_message_ends_a_line_of_text(end: str) -> None:
    line = TextFormatter().format(record("a reply: %s", f"one{end}two", action="reply.ignore"))
    assert len(line.splitlines()) == 1
    assert "one\\" in line


def test_a_message_does_not_steer_a_terminal() -> None:
    assert "\x1b" not in TextFormatter().format(record("a reply: %s", "\x1b[2J", action="reply.ignore"))


def test_lines_of_a_traceback_in_text_are_indented_and_forge_no_record() -> None:
    first, *rest = TextFormatter().format(record("a call fails", error=raised(FORGED), action="call.fail")).split("\n")
    assert first.endswith("call.fail: a call fails")
    assert "Traceback" in rest[0]
    assert all(line.startswith("    ") for line in rest)
    assert any("forged" in line for line in rest)


def test_json_has_what_every_record_has_first() -> None:
    told = json.loads(JsonLineFormatter().format(record("queue %s", "a", action="broker.consume", queue="a")))
    assert list(told) == ["time", "level", "logger", "process", "action", "message", "queue"]
    assert told["level"] == "warning"
    assert told["logger"] == "provgate_test"
    assert told["message"] == "queue a"
    assert datetime.fromisoformat(told["time"]).utcoffset() == timedelta(0)


def test_json_is_one_line_with_the_traceback_as_text() -> None:
    line = JsonLineFormatter().format(record("%s", FORGED, error=raised(FORGED), action="call.fail"))
    assert len(line.splitlines()) == 1
    told = json.loads(line)
    assert told["message"] == FORGED
    assert told["exc_info"].startswith("Traceback")
    assert FORGED in told["exc_info"]


def test_json_of_a_library_has_no_action() -> None:
    assert "action" not in json.loads(JsonLineFormatter().format(record("hello")))


def test_json_has_ids_in_hex_and_no_field_without_a_value() -> None:
    told = json.loads(JsonLineFormatter().format(record("hello", id=b"\xab" * 20, correlation_id=None)))
    assert told["id"] == "ab" * 20
    assert "correlation_id" not in told


def test_json_of_text_that_is_no_unicode_can_be_read() -> None:
    assert json.loads(JsonLineFormatter().format(record("%s", "\udc80")))["message"] == "\udc80"


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    return clock


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def levels(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.levelname for each in caplog.records]


def fields(record: Any, *names: str) -> tuple[Any, ...]:
    return tuple(getattr(record, name) for name in names)


def test_the_first_failure_and_the_end_are_logged_and_attempts_are_not(
    clock: Clock, records: pytest.LogCaptureFixture
) -> None:
    outage = Outage(logger, action="broker.connect")
    for _ in range(50):
        outage.failed("no connection", "refused", address="a:1")
        clock.now_s += 0.5
    outage.ended("connected again", address="a:1")
    assert not outage.goes_on
    assert levels(records) == ["WARNING", *["DEBUG"] * 49, "INFO"]
    first, last = records.records[0], records.records[-1]
    assert first.getMessage() == "no connection: refused"
    failing = ("broker.connect", "failing", "refused", "a:1")
    assert fields(first, "action", "state", "reason", "address") == failing
    assert last.getMessage() == "connected again after 25.0 s"
    assert fields(last, "action", "state", "after_s") == ("broker.connect", "working", 25.0)


def test_each_outage_is_logged(clock: Clock, records: pytest.LogCaptureFixture) -> None:
    outage = Outage(logger, action="broker.connect")
    for _ in range(3):
        outage.failed("no connection", "refused")
        outage.ended("connected again")
    assert levels(records) == ["WARNING", "INFO"] * 3


def test_without_failures_there_is_no_end(records: pytest.LogCaptureFixture) -> None:
    Outage(logger, action="broker.connect").ended("connected again")
    assert not records.records


def test_three_reasons_of_an_outage_are_logged(clock: Clock, records: pytest.LogCaptureFixture) -> None:
    outage = Outage(logger, action="broker.connect")
    for reason in ("refused", "closing", "refused", "no right", *(f"attempt {number}" for number in range(20))):
        outage.failed("no connection", reason)
    assert [each.getMessage() for each in records.records if each.levelno == logging.WARNING] == [
        "no connection: refused",
        "no connection: closing",
        "no connection: no right",
    ]


def test_alternating_failures_and_successes_are_one_outage(clock: Clock, records: pytest.LogCaptureFixture) -> None:
    outage = Outage(logger, action="storage.read", calm_s=10.0)
    for _ in range(20):
        outage.failed("a read fails", "away")
        clock.now_s += 1.0
        outage.ended("reads go well again")
    assert levels(records) == ["WARNING", *["DEBUG"] * 19]
    clock.now_s += 9.5
    outage.ended("reads go well again")
    assert levels(records)[-1] == "INFO"
