"""When a reply or a copy counts as safe, and what is published again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from unittest import mock

import pytest
from prometheus_client import Counter

from provgate_broker.amqp.connection import AmqpParameters
from provgate_broker.publish.publisher import Message
from provgate_workers.settle import outbox as outbox_module
from provgate_workers.settle.outbox import Outbox
from tests.support.virtual_clock import run_virtually

RETRIED_S = 2 * outbox_module._REFUSED_RETRY_S


class FakePublisher:
    """A publisher whose state the test sets."""

    def __init__(self) -> None:
        self.ready = False
        self.blocked = False
        self.published: list[str] = []

    def publish(self, message: Message) -> None:
        self.published.append(message.token)


class Bench:
    """An outbox, its publisher, and the messages that it reports as safe."""

    def __init__(self) -> None:
        self.safe: list[str] = []
        self.dropped = Counter("dropped_replies", "", registry=None)
        self.publisher = FakePublisher()
        with mock.patch.object(outbox_module, "Publisher", return_value=self.publisher):
            self.outbox = Outbox(
                AmqpParameters("amqp://localhost", 10),
                "test",
                self.dropped,
                lambda event: self.safe.append(event.token),
            )

    def connect(self) -> None:
        self.publisher.ready, self.publisher.blocked = True, False
        self.outbox.publisher_ready()

    def block(self) -> None:
        self.publisher.ready, self.publisher.blocked = False, True
        self.outbox.publisher_blocked()

    def lose(self) -> None:
        self.publisher.ready = self.publisher.blocked = False
        self.outbox.publisher_lost()

    def reply(self, token: str) -> None:
        self.outbox.send(Message(token, "", "queue", b""), expendable=True)

    def copy(self, token: str) -> None:
        self.outbox.send(Message(token, "", "queue", b""), expendable=False)


def on_a_loop(test: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        await test(Bench())

    run_virtually(run())


def test_nothing_is_safe_before_it_is_confirmed() -> None:
    async def test(bench: Bench) -> None:
        bench.reply("early")
        bench.connect()
        bench.reply("r")
        bench.copy("c")
        assert bench.publisher.published == ["early", "r", "c"]
        assert bench.safe == []
        for token in ("r", "c", "early", "r", "unknown"):
            bench.outbox.confirmed(token)
        assert bench.safe == ["r", "c", "early"]
        await asyncio.wait_for(bench.outbox.drained(), 1)

    on_a_loop(test)


def test_while_publishes_are_blocked_replies_count_as_sent_and_copies_do_not() -> None:
    async def test(bench: Bench) -> None:
        bench.connect()
        bench.reply("under way")
        bench.copy("copy under way")
        bench.block()
        bench.reply("kept")
        bench.copy("copy")
        assert bench.safe == ["under way", "kept"]
        bench.connect()
        assert bench.publisher.published == ["under way", "copy under way", "kept", "copy"]
        for token in ("under way", "copy under way", "kept", "copy"):
            bench.outbox.confirmed(token)
        assert bench.safe == ["under way", "kept", "copy under way", "copy"]

    on_a_loop(test)


def test_without_a_connection_all_wait_and_are_published_again() -> None:
    async def test(bench: Bench) -> None:
        bench.connect()
        bench.reply("r")
        bench.copy("c")
        bench.lose()
        bench.reply("later")
        assert bench.safe == []
        bench.connect()
        assert bench.publisher.published == ["r", "c", "r", "c", "later"]

    on_a_loop(test)


def test_a_returned_copy_is_not_safe_though_it_is_confirmed() -> None:
    async def test(bench: Bench) -> None:
        bench.connect()
        bench.copy("c")
        bench.outbox.returned("c", "", "queue")
        bench.outbox.confirmed("c")
        assert bench.safe == []
        assert bench.publisher.published == ["c"]
        await asyncio.sleep(RETRIED_S)
        assert bench.publisher.published == ["c", "c"]
        bench.outbox.confirmed("c")
        assert bench.safe == ["c"]

    on_a_loop(test)


def test_a_refused_copy_is_sent_again_and_a_refused_reply_given_up() -> None:
    async def test(bench: Bench) -> None:
        bench.connect()
        bench.copy("c")
        bench.reply("r")
        bench.outbox.nacked("c")
        bench.outbox.nacked("r")
        assert bench.safe == ["r"]
        await asyncio.sleep(RETRIED_S)
        assert bench.publisher.published == ["c", "r", "c"]

    on_a_loop(test)


def test_what_waits_for_its_next_try_is_published_once_over_a_new_connection() -> None:
    async def test(bench: Bench) -> None:
        bench.connect()
        bench.copy("c")
        bench.outbox.nacked("c")
        bench.lose()
        bench.connect()
        assert bench.publisher.published == ["c", "c"]
        await asyncio.sleep(RETRIED_S)
        assert bench.publisher.published == ["c", "c"]
        bench.outbox.confirmed("c")
        assert bench.safe == ["c"]

    on_a_loop(test)


def test_the_replies_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "KEPT_REPLIES_MAX_COUNT", 3)

    async def test(bench: Bench) -> None:
        bench.connect()
        bench.copy("copy")
        bench.block()
        for token in "abcdef":
            bench.reply(token)
        assert bench.safe == list("abcdef")
        assert next(sample.value for metric in bench.dropped.collect() for sample in metric.samples) == 4
        bench.connect()
        assert bench.publisher.published == ["copy", "e", "f"]

    on_a_loop(test)


def test_many_messages_are_published_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "_FLUSH_COUNT", 2)

    async def test(bench: Bench) -> None:
        for token in "abcde":
            bench.reply(token)
        bench.connect()
        assert bench.publisher.published == ["a", "b"]
        await asyncio.sleep(0.01)
        assert bench.publisher.published == list("abcde")

    on_a_loop(test)
