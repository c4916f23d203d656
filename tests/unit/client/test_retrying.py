"""How long and how often a call is repeated, on a clock of the test's own."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import grpc
import pytest

from provgate_client.adapter import retrying
from provgate_client.adapter.retrying import Retry
from provgate_client.errors import CallStatus, GatewayBusyError, GatewayUnavailableError

AWAY = GatewayUnavailableError("away", CallStatus(grpc.StatusCode.UNAVAILABLE))


class Pauses(threading.Event):
    """Records how long it is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths_s: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.lengths_s.append(timeout or 0.0)
        return False


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    """Replaces the clock, which only pauses move, and makes each pause as long as it can be."""
    pauses = Pauses()
    monkeypatch.setattr(retrying, "time", SimpleNamespace(monotonic=lambda: 1000.0 + sum(pauses.lengths_s)))
    monkeypatch.setattr(retrying, "random", SimpleNamespace(uniform=lambda _, longest_s: longest_s))
    return pauses


def gives_up(retry: Retry) -> bool:
    return any(not retry.pause(AWAY) for _ in range(100))


def test_pauses_grow_until_the_limit_which_counts_from_the_first_failure(pauses: Pauses) -> None:
    retry = Retry(60, pauses)
    assert gives_up(retry)
    assert pauses.lengths_s[:7] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert 55 < sum(pauses.lengths_s) <= 60


def test_progress_resets_the_pause_and_the_limit(pauses: Pauses) -> None:
    retry = Retry(60, pauses)
    assert gives_up(retry)
    retry.progressed()
    assert retry.pause(AWAY)
    assert pauses.lengths_s[-1] == 0.2


def test_the_gateway_s_delay_counts(pauses: Pauses) -> None:
    busy = GatewayBusyError("busy", CallStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_delay_s=25))
    retry = Retry(60, pauses)
    assert [retry.pause(busy) for _ in range(3)] == [True, True, False]
    assert pauses.lengths_s == [25, 25]
    assert not Retry(0, pauses).pause(AWAY)
