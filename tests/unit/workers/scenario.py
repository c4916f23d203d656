"""A worker process with everything around it, for tests that say step by step what happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from provgate_broker.dead_letters.messages import EXCHANGE_HEADER, ID_HEADER, ROUTING_KEY_HEADER
from provgate_broker.publish.publisher import Message
from provgate_broker.topology.declaration import QUARANTINE_QUEUE
from provgate_broker.topology.policy import (
    OPERATIONS,
    Operation,
    WriteMethod,
    binding_key,
    exchange_of,
    parse_binding_key,
)
from provgate_broker.wire.package import Reply, decode_reply
from provgate_storage.model import RelationType
from tests.support.entries import decode_entries, encode_package
from tests.unit.workers.simulated_broker import NUMBER_HEADER, Held, SimulatedBroker
from tests.unit.workers.simulated_process import SimulatedProcess, SimulatedStorage, holds

CONTENT_ADD: Final = Operation(WriteMethod.CONTENT_ADD)
DIRECTORY_ADD: Final = Operation(WriteMethod.DIRECTORY_ADD)
EARLY: Final = Operation(WriteMethod.RELATION_ADD, RelationType.CNT_EARLY_IN_REV)
IN_DIR: Final = Operation(WriteMethod.RELATION_ADD, RelationType.CNT_IN_DIR)


class Scenario:
    """A broker, a storage and a process between them. Packages go by the numbers that `publish` returns.

    Args:
        range_count: the ranges of each exchange.
        settings: of the process, where they are not the defaults.

    Attributes:
        replies: what senders got, by package.
    """

    def __init__(self, range_count: int = 1, **settings: Any) -> None:
        self.storage = SimulatedStorage()
        self.replies: dict[int, Reply] = {}
        self._range_count = range_count
        self._sent: list[Held] = []
        queues = [binding_key(operation, number) for operation in OPERATIONS for number in range(range_count)]
        self.broker = SimulatedBroker(queues, self.is_stored, self._note_reply)
        self.process = SimulatedProcess(self.broker, self.storage, range_count, **settings)

    def publish(
        self,
        operation: Operation = CONTENT_ADD,
        range_number: int = 0,
        row_count: int = 1,
        *,
        body: bytes | None = None,
        delivery_count: int = 0,
        queue: str | None = None,
        headers: dict[str, Any] | None = None,
    ) -> int:
        """Puts a package into its queue, or into `queue`, and returns its number."""
        number = len(self._sent)
        id = self.id_of(number, range_number)
        key = binding_key(operation, range_number)
        if body is None:
            body = encode_package([(id,) if operation.relation is None else (id, id, b"path")] * row_count)
        held = Held(
            number,
            exchange_of(operation),
            key,
            body,
            "amq.gen-sender",
            str(number),
            {NUMBER_HEADER: number, **(headers or {})},
            delivery_count,
        )
        self._sent.append(held)
        self.broker.queues[queue or key].append(held)
        return number

    def id_of(self, number: int, range_number: int = 0) -> bytes:
        """Returns the id that a package adds."""
        return bytes([range_number * 256 // self._range_count]) + number.to_bytes(19)

    def deliver(self) -> None:
        """Delivers what waits in the work queues, all with one read of the socket."""

        def deliver_all() -> None:
            for queue in self.broker.queues:
                if not queue.startswith("provgate."):
                    self.broker.consumer.deliver(queue)

        self.process.run(deliver_all)

    def send(self, *arguments: Any, **properties: Any) -> int:
        """Publishes a package, as `publish` does, and delivers it."""
        number = self.publish(*arguments, **properties)
        self.deliver()
        return number

    def store(self, number: int = 0) -> None:
        """Has a storage thread end one of the batches that run."""
        self.process.finish_job(number)

    def confirm(self) -> None:
        """Confirms every message that is on its way, and those that follow."""
        while self.broker.publisher.underway:
            self.process.run(self.broker.publisher.confirm_next)

    def work(self, seconds: float = 0.0) -> None:
        """Delivers, stores and confirms everything, for some seconds that pass in steps."""
        left_s = seconds
        while True:
            self.deliver()
            while self.process.job_count:
                self.store()
            self.confirm()
            if left_s <= 0:
                return
            self.process.pass_time(min(0.5, left_s))
            left_s -= 0.5

    def quarantine(self, id: str, *, delivery_count: int = 0, row_count: int = 1) -> int:
        """Puts a package into quarantine, as a worker does."""
        headers = {ID_HEADER: id, EXCHANGE_HEADER: "content", ROUTING_KEY_HEADER: binding_key(CONTENT_ADD, 0)}
        return self.publish(queue=QUARANTINE_QUEUE, delivery_count=delivery_count, row_count=row_count, headers=headers)

    def is_stored(self, number: int) -> bool:
        """Returns whether the rows of a package are stored."""
        held = self._sent[number]
        operation, _ = parse_binding_key(held.routing_key)
        return holds(self.storage, operation, decode_entries(held.body, operation))

    def stored_count(self, numbers: list[int]) -> int:
        """Returns how many packages are stored."""
        return sum(map(self.is_stored, numbers))

    def value(self, name: str, **labels: str) -> float:
        """Returns the value of a metric of the process."""
        self.process.report()
        return self.process.registry.get_sample_value(f"provgate_workers_{name}", labels) or 0.0

    def _note_reply(self, message: Message) -> None:
        self.replies[int(message.correlation_id or "")] = decode_reply(message.body)


@contextmanager
def scenario(range_count: int = 1, **settings: Any) -> Iterator[Scenario]:
    """Yields a scenario, and ends its process."""
    running = Scenario(range_count, **settings)
    try:
        yield running
        assert not running.process.loop_errors
    finally:
        running.process.end()
