"""When a link connects again, and what it logs."""

from __future__ import annotations

import asyncio
import itertools
import logging

import pytest

from provgate_broker.amqp import link as module
from provgate_broker.amqp.connection import AmqpParameters, AmqpSession
from provgate_broker.amqp.link import AmqpLink
from provgate_broker.errors import ConnectionLostError
from tests.support.polling import until
from tests.support.virtual_clock import run_virtually

PARAMETERS = AmqpParameters("amqp://localhost/%2F", 10)
LINKS = 10
RESTART_EVERY_S = 100.0


class FakeSession:
    peer = "192.0.2.7:5672"

    async def close(self) -> None:
        pass


@pytest.fixture
def opened_at_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Makes every attempt to connect succeed, and returns the times of the attempts."""
    times: list[float] = []

    async def open_session(_parameters: AmqpParameters, _name: str) -> FakeSession:
        times.append(asyncio.get_running_loop().time())
        return FakeSession()

    monkeypatch.setattr(module, "open_session", open_session)
    return times


def test_the_first_failure_is_a_warning_and_others_are_debug(caplog: pytest.LogCaptureFixture) -> None:
    async def serve(_session: AmqpSession) -> None:
        raise AssertionError("there is no broker")

    def failures() -> list[logging.LogRecord]:
        return [record for record in caplog.records if "no connection to" in record.getMessage()]

    async def run() -> None:
        link = AmqpLink(AmqpParameters("amqp://guest:hunter2@127.0.0.1:1/", 10), "a link", serve)
        running = asyncio.create_task(link.run())
        await until(lambda: len(failures()) >= 4)
        running.cancel()

    caplog.set_level(logging.DEBUG, "provgate_broker")
    asyncio.run(run())
    first, *others = failures()
    assert {record.levelno for record in others} == {logging.DEBUG}
    assert first.levelno == logging.WARNING
    assert first.getMessage().startswith("a link: no connection to 127.0.0.1:1/%2F: ")
    fields = {"action": "broker.connect", "state": "failing", "connection": "a link", "address": "127.0.0.1:1/%2F"}
    assert first.__dict__.items() >= fields.items()
    assert "hunter2" not in caplog.text


def test_links_that_lose_settled_connections_together_come_back_apart(opened_at_s: list[float]) -> None:
    async def serve_until_the_broker_restarts(_session: AmqpSession) -> None:
        now_s = asyncio.get_running_loop().time()
        await asyncio.sleep(RESTART_EVERY_S - now_s % RESTART_EVERY_S)
        raise ConnectionLostError("the broker restarts")

    async def run() -> None:
        links = [AmqpLink(PARAMETERS, str(n), serve_until_the_broker_restarts) for n in range(LINKS)]
        running = [asyncio.create_task(link.run()) for link in links]
        await asyncio.sleep(5 * RESTART_EVERY_S - 1)
        for task in running:
            task.cancel()

    run_virtually(run())
    for restart in range(1, 5):
        times = sorted(at for at in opened_at_s if restart * RESTART_EVERY_S <= at < (restart + 1) * RESTART_EVERY_S)
        assert len(times) == LINKS
        assert len(set(times)) == LINKS, f"after {restart * RESTART_EVERY_S:.0f} s all connect in the same moment"
        assert times[-1] < restart * RESTART_EVERY_S + 1


def test_it_backs_off_from_sessions_that_end_at_once(opened_at_s: list[float]) -> None:
    async def serve(_session: AmqpSession) -> None:
        raise ConnectionLostError("a right is missing")

    async def run() -> None:
        running = asyncio.create_task(AmqpLink(PARAMETERS, "a link", serve).run())
        await asyncio.sleep(600)
        running.cancel()

    run_virtually(run())
    pauses_s = [later - earlier for earlier, later in itertools.pairwise(opened_at_s)]
    assert max(pauses_s) <= 10
    assert 60 < len(opened_at_s) < 250


def test_it_logs_which_peer_was_reached(caplog: pytest.LogCaptureFixture, opened_at_s: list[float]) -> None:
    async def serve(_session: AmqpSession) -> None:
        await asyncio.sleep(20)
        raise ConnectionLostError("reset")

    async def run() -> None:
        running = asyncio.create_task(AmqpLink(PARAMETERS, "a link", serve).run())
        await asyncio.sleep(25)
        running.cancel()

    caplog.set_level(logging.INFO, "provgate_broker")
    run_virtually(run())
    assert len(opened_at_s) == 2
    assert [record.getMessage() for record in caplog.records][:2] == [
        "a link: connected to localhost:5672/%2F at 192.0.2.7:5672",
        "a link: connection to 192.0.2.7:5672 lost: reset",
    ]
    assert caplog.records[2].getMessage().startswith("a link: connected to localhost:5672/%2F at 192.0.2.7:5672 again")
    assert {(record.__dict__["address"], record.__dict__["peer"]) for record in caplog.records} == {
        ("localhost:5672/%2F", "192.0.2.7:5672")
    }
