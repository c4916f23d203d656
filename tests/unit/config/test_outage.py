"""What is told of a row of failures."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from provgate_runtime import outage as outage_module
from provgate_runtime.outage import Outage

logger = logging.getLogger(__name__)


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(outage_module, "time", clock)
    return clock


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def levels(told: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in told.records]


def field(record: Any, name: str) -> Any:
    return getattr(record, name)


def test_the_first_failure_and_the_end_are_told_and_attempts_are_not(
    clock: Clock, told: pytest.LogCaptureFixture
) -> None:
    outage = Outage(logger, action="broker.connect")
    for _ in range(50):
        outage.failed("no connection", "refused", address="a:1")
        clock.now_s += 0.5
    outage.ended("connected again", address="a:1")
    assert not outage.goes_on
    assert levels(told) == ["WARNING", *["DEBUG"] * 49, "INFO"]
    first, last = told.records[0], told.records[-1]
    assert first.getMessage() == "no connection: refused"
    assert (field(first, "action"), field(first, "state"), field(first, "reason"), field(first, "address")) == (
        "broker.connect",
        "failing",
        "refused",
        "a:1",
    )
    assert last.getMessage() == "connected again after 25.0 s"
    assert (field(last, "action"), field(last, "state"), field(last, "after_s")) == ("broker.connect", "working", 25.0)


def test_each_row_is_told(clock: Clock, told: pytest.LogCaptureFixture) -> None:
    outage = Outage(logger, action="broker.connect")
    for _ in range(3):
        outage.failed("no connection", "refused")
        outage.ended("connected again")
    assert levels(told) == ["WARNING", "INFO"] * 3


def test_without_failures_there_is_no_end(told: pytest.LogCaptureFixture) -> None:
    Outage(logger, action="broker.connect").ended("connected again")
    assert not told.records


def test_another_reason_is_told_but_not_without_end(clock: Clock, told: pytest.LogCaptureFixture) -> None:
    outage = Outage(logger, action="broker.connect")
    for reason in ("refused", "closing", "refused", "no right", *(f"attempt {number}" for number in range(20))):
        outage.failed("no connection", reason)
    assert [record.getMessage() for record in told.records if record.levelno == logging.WARNING] == [
        "no connection: refused",
        "no connection: closing",
        "no connection: no right",
    ]


def test_failures_and_successes_that_come_mixed_are_one_row(clock: Clock, told: pytest.LogCaptureFixture) -> None:
    outage = Outage(logger, action="storage.read", calm_s=10.0)
    for _ in range(20):
        outage.failed("a read fails", "away")
        clock.now_s += 1.0
        outage.ended("reads go well again")
    assert levels(told) == ["WARNING", *["DEBUG"] * 19]
    clock.now_s += 9.5
    outage.ended("reads go well again")
    assert levels(told)[-1] == "INFO"
