"""What a link logs of a broker that is not there."""

from __future__ import annotations

import asyncio
import logging

import pytest

from provgate_broker.link import AmqpLink
from provgate_broker.session import AmqpParameters, AmqpSession
from tests.unit.workers.eventually import until


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
