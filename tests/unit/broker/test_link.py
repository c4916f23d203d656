"""When a link connects again, and what it logs."""

from __future__ import annotations

import asyncio
import logging

import pytest

from provgate_broker.amqp import link as module
from provgate_broker.amqp.connection import AmqpParameters, AmqpSession
from provgate_broker.amqp.link import AmqpLink
from provgate_broker.errors import ConnectionLostError
from tests.support.polling import until

PARAMETERS = AmqpParameters("amqp://localhost/%2F", 10)
LINKS = 10
RESTART_EVERY_S = 100.0


async def serve(_session: AmqpSession) -> None:
    raise AssertionError("there is no broker")


def records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if "no connection to" in record.getMessage()]


def test_the_first_failure_is_told_and_further_attempts_are_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "provgate_broker")
    link = AmqpLink(AmqpParameters("amqp://guest:hunter2@127.0.0.1:1/", 10), "a link", serve)

    async def run() -> None:
        running = asyncio.create_task(link.run())
        await until(lambda: len(records(caplog)) >= 4)
        running.cancel()

    asyncio.run(run())
    told, *others = records(caplog)
    assert {record.levelno for record in others} == {logging.DEBUG}
    assert told.levelno == logging.WARNING
    assert told.getMessage().startswith("a link: no connection to 127.0.0.1:1/%2F: ")
    assert {key: told.__dict__[key] for key in ("action", "state", "connection", "address")} == {
        "action": "broker.connect",
        "state": "failing",
        "connection": "a link",
        "address": "127.0.0.1:1/%2F",
    }
    assert "hunter2" not in caplog.text


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer when nothing else is to be done."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0

    def time(self) -> float:
        return self._now_s

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._now_s = max(self._now_s, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class FakeSession:
    peer = "192.0.2.7:5672"

    async def close(self) -> None:
        pass


def test_links_that_lose_settled_connections_together_come_back_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    opened_at: list[float] = []

    async def open_session(_parameters: AmqpParameters, _name: str) -> FakeSession:
        opened_at.append(asyncio.get_running_loop().time())
        return FakeSession()

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

    monkeypatch.setattr(module, "open_session", open_session)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run())
    for restart in range(1, 5):
        times = sorted(at for at in opened_at if restart * RESTART_EVERY_S <= at < (restart + 1) * RESTART_EVERY_S)
        assert len(times) == LINKS
        assert len(set(times)) == LINKS, f"after {restart * RESTART_EVERY_S:.0f} s all connect in the same moment"
        assert times[-1] < restart * RESTART_EVERY_S + 1


def test_it_says_which_peer_was_reached(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    async def open_session(_parameters: AmqpParameters, _name: str) -> FakeSession:
        return FakeSession()

    async def serve(_session: AmqpSession) -> None:
        await asyncio.sleep(20)
        raise ConnectionLostError("reset")

    async def run() -> None:
        running = asyncio.create_task(AmqpLink(PARAMETERS, "a link", serve).run())
        await asyncio.sleep(25)
        running.cancel()

    caplog.set_level(logging.INFO, "provgate_broker")
    monkeypatch.setattr(module, "open_session", open_session)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run())
    assert [record.getMessage() for record in caplog.records][:2] == [
        "a link: connected to localhost:5672/%2F at 192.0.2.7:5672",
        "a link: connection to 192.0.2.7:5672 lost: reset",
    ]
    assert caplog.records[2].getMessage().startswith("a link: connected to localhost:5672/%2F at 192.0.2.7:5672 again")
    assert {(record.__dict__["address"], record.__dict__["peer"]) for record in caplog.records} == {
        ("localhost:5672/%2F", "192.0.2.7:5672")
    }
