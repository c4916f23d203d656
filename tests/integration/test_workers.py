"""What a worker program does with packages, good and bad."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from pika.spec import BasicProperties

from provgate_broker.dead_letters.messages import REASON_HEADER
from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE, QUARANTINE_QUEUE
from provgate_broker.topology.policy import Exchange, Operation, WriteMethod, binding_key, parse_binding_key
from provgate_broker.wire.package import NACK_HEADER, Nack
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.servers.postgresql import postgresql_storage
from provgate_stack.stack import Stack
from provgate_storage import EntityType, ProvenanceStorageInterface, RelationData, RelationType, get_provenance_storage
from tests.support.entries import Entry, decode_entries, encode_package
from tests.support.packages import AmqpSender

VECTORS = json.loads((Path(__file__).parent.parent / "data" / "wire_vectors.json").read_text())["vectors"]
DATE = datetime(2020, 1, 2, 3, 4, 5, 678901, UTC)
CONTENT_ADD = Operation(WriteMethod.CONTENT_ADD)
MIB = 2**20


def content_id(text: str, range_number: int = 0xA) -> bytes:
    return bytes([range_number << 4]) + hashlib.sha1(text.encode()).digest()[1:]


@pytest.fixture(scope="module")
def programs(module_amqp_url: str, module_postgres_dsn: str, stack_directory: StackDirectory) -> Iterator[Stack]:
    stack = Stack(module_amqp_url, postgresql_storage(module_postgres_dsn), stack_directory, name="workers")
    stack.start_workers()
    yield stack
    stack.kill()


@pytest.fixture
def sender(programs: Stack, module_amqp_url: str) -> Iterator[AmqpSender]:
    with AmqpSender(module_amqp_url) as sender:
        sender.amqp_channel.queue_purge(DEAD_LETTER_QUEUE)
        yield sender
        assert programs.workers[0].alive


@pytest.fixture(scope="module")
def storage(programs: Stack, module_postgres_dsn: str) -> Iterator[ProvenanceStorageInterface]:
    with get_provenance_storage(**postgresql_storage(module_postgres_dsn)) as storage:
        yield storage


def is_stored(storage: ProvenanceStorageInterface, operation: Operation, entry: Entry) -> bool:
    if operation.relation is not None:
        src, dst, path = entry
        return RelationData(dst, path) in storage.relation_get(operation.relation, [src]).get(src, set())
    everything: dict[WriteMethod, set[bytes]] = {
        WriteMethod.CONTENT_ADD: storage.entity_get_all(EntityType.CONTENT),
        WriteMethod.DIRECTORY_ADD: storage.entity_get_all(EntityType.DIRECTORY),
        WriteMethod.REVISION_ADD: storage.entity_get_all(EntityType.REVISION),
        WriteMethod.ORIGIN_ADD: storage.entity_get_all(EntityType.ORIGIN),
        WriteMethod.LOCATION_ADD: storage.location_get_all(),
    }
    return entry[0] in everything[operation.method]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["call"])
def test_captured_packages_are_stored_and_answered(
    sender: AmqpSender, storage: ProvenanceStorageInterface, vector: dict[str, str]
) -> None:
    body = bytes.fromhex(vector["body_hex"])
    operation, _ = parse_binding_key(vector["routing_key"])
    entries = decode_entries(body, operation)
    assert sender.call(vector["exchange"], vector["routing_key"], body) == len(entries)
    assert all(is_stored(storage, operation, entry) for entry in entries)


def test_a_reply_counts_duplicates(sender: AmqpSender) -> None:
    body = encode_package([(content_id("twice"), DATE), (content_id("twice"), None), (content_id("twice"),)])
    assert sender.call("content", "content_add.unknown.a", body) == 3


def test_a_sender_that_understands_no_nack_gets_none(sender: AmqpSender) -> None:
    refused = sender.publish("content", "content_add.unknown.a", b"nonsense")
    sender.take(DEAD_LETTER_QUEUE)
    assert sender.call("content", "content_add.unknown.a", encode_package([(content_id("after"), DATE)])) == 1
    assert refused not in sender.replies


def test_a_body_over_the_bound_is_a_dead_letter_that_costs_little_memory(
    programs: Stack, sender: AmqpSender, storage: ProvenanceStorageInterface
) -> None:
    row_count = 33_000_000
    body = b"\x81\xa4data\xdd" + struct.pack(">I", row_count) + b"\x91\xc4\x00" * row_count
    children = psutil.Process(programs.workers[0].pid).children(recursive=True)

    def held_bytes() -> int:
        return sum(child.memory_info().rss for child in children)

    before_bytes = peak_bytes = held_bytes()

    def is_answered() -> bool:
        nonlocal peak_bytes
        peak_bytes = max(peak_bytes, held_bytes())
        return refused in sender.replies

    refused = sender.publish("location", "location_add.unknown.a", body, headers={NACK_HEADER: True})
    sender.wait_until(is_answered, 120)
    (nack,) = sender.replies[refused]
    assert isinstance(nack, Nack)
    assert (nack.error, nack.rejected_count) == ("malformed", 0)
    assert nack.message == f"the body has {len(body)} bytes: more than package_max_bytes, 8388608"
    properties, letter = sender.take(DEAD_LETTER_QUEUE)
    assert (properties.headers or {})[REASON_HEADER] == "malformed"
    assert letter == body
    # The broker's frames, the body that pika joins, and its copy on the way out.
    peak = f"{before_bytes / MIB:.0f} MiB before, {peak_bytes / MIB:.0f} MiB at most"
    assert peak_bytes - before_bytes < 6 * len(body), peak
    path = b"after the large one"
    assert (
        sender.call("location", f"location_add.unknown.{hashlib.sha1(path).hexdigest()[0]}", encode_package([(path,)]))
        == 1
    )
    assert path in storage.location_get_all()


def test_rows_of_another_operation_are_a_dead_letter(sender: AmqpSender) -> None:
    body = encode_package([(content_id("source"), b"r" * 20, b"path")])
    sender.publish("content", "content_add.unknown.a", body)
    properties, _ = sender.take(DEAD_LETTER_QUEUE)
    assert (properties.headers or {})[REASON_HEADER] == "malformed"


@pytest.mark.parametrize(
    "properties",
    [
        {"correlation_id": None},
        {"reply_to": None},
        {"reply_to": "content_add.unknown.a"},
        {"reply_to": "a.queue.of.somebody"},
        {"reply_to": ""},
        {"reply_to": "amq.gen-" + "x" * 247},
        {"reply_to": "amq.gen-\n\0\x1b[31m"},
        {"reply_to": "amq.gen-nobody's", "correlation_id": "c" * 255},
        {"correlation_id": "", "headers": {"provgate-nack": ["true"], "provgate-time": -1}},
        {"correlation_id": None, "reply_to": None, "content_type": None, "headers": {"x-delivery-count": "many"}},
    ],
    ids=str,
)
def test_a_package_that_cannot_be_answered_is_stored(
    sender: AmqpSender, storage: ProvenanceStorageInterface, properties: dict[str, Any]
) -> None:
    sender.amqp_channel.queue_declare("a.queue.of.somebody", exclusive=True)
    id = content_id(f"unanswered {properties}")
    sender.publish("content", "content_add.unknown.a", encode_package([(id, DATE)]), **properties)
    sender.wait_until(lambda: id in storage.content_get([id]))
    assert sender.call("content", "content_add.unknown.a", encode_package([(id, DATE)])) == 1
    assert len(sender.replies) == 1
    assert sender.message_count("a.queue.of.somebody") == 0
    assert sender.message_count(DEAD_LETTER_QUEUE) == 0
    sender.amqp_channel.queue_delete("a.queue.of.somebody")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"provgate-exchange": "x" * 130_500, "provgate-routing-key": "content_add.unknown.a"},
        {"provgate-exchange": "content", "provgate-routing-key": "\n 2026-01-01 forged"},
        {"provgate-exchange": ["content"], "provgate-routing-key": {"a": 1}, "provgate-id": "i" * 100_000},
        {"provgate-exchange": True, "provgate-routing-key": None, "provgate-redelivered": 2**63 - 1},
    ],
    ids=["none", "huge", "two lines", "odd types", "odd values"],
)
def test_what_a_stranger_puts_into_quarantine_is_a_dead_letter(
    sender: AmqpSender, programs: Stack, headers: dict[str, Any]
) -> None:
    sender.publish("", QUARANTINE_QUEUE, b"no package", headers=headers)
    properties, _ = sender.take(DEAD_LETTER_QUEUE)
    assert (properties.headers or {})[REASON_HEADER] == "malformed"
    assert "\n 2026-01-01 forged" not in programs.workers[0].log_path.read_text("utf-8")


class RawProperties(BasicProperties):
    """Properties with a header table that pika would not encode."""

    def __init__(self, table: bytes) -> None:
        super().__init__()
        self._table = table

    def encode(self) -> Any:
        return [struct.pack(">HI", BasicProperties.FLAG_HEADERS, len(self._table)), self._table]


def test_headers_that_cannot_be_decoded_block_nothing(sender: AmqpSender, storage: ProvenanceStorageInterface) -> None:
    id = content_id("hostile headers")
    nested = b""
    for _ in range(2000):
        nested = b"\x01aF" + struct.pack(">I", len(nested)) + nested
    for table in (b"\x01tT" + b"\xff" * 8, nested):
        body = encode_package([(id, DATE)])
        sender.amqp_channel.basic_publish("content", "content_add.unknown.a", body, RawProperties(table))
    assert sender.call("content", "content_add.unknown.a", encode_package([(id, DATE)])) == 1
    sender.wait_until(lambda: not sender.message_count("content_add.unknown.a"))
    assert id in storage.content_get([id])


def test_a_reply_queue_with_our_prefix_is_answered(sender: AmqpSender) -> None:
    queue = "provgate.reply.of-a-test"
    sender.amqp_channel.queue_declare(queue, exclusive=True)
    sender.publish("content", "content_add.unknown.a", encode_package([(content_id("own"), DATE)]), reply_to=queue)
    _, body = sender.take(queue)
    assert body == b"\x01"


def test_a_sender_that_is_gone_blocks_nothing(sender: AmqpSender, storage: ProvenanceStorageInterface) -> None:
    id = content_id("sender gone")
    sender.publish("content", "content_add.unknown.a", encode_package([(id, DATE)]), reply_to="amq.gen-gone")
    sender.wait_until(lambda: id in storage.content_get([id]))
    assert sender.call("content", "content_add.unknown.a", encode_package([(id, DATE)])) == 1


def test_rows_of_another_range_are_stored(
    sender: AmqpSender, storage: ProvenanceStorageInterface, programs: Stack
) -> None:
    ids = [content_id(f"stray {number}", range_number=3) for number in range(3)]
    for id in ids:
        assert sender.call("content", "content_add.unknown.7", encode_package([(id, DATE)])) == 1
    assert set(storage.content_get(ids)) == set(ids)
    log = programs.workers[0].log_path.read_text()
    assert log.count("rows of other ranges come to queue content_add.unknown.7") == 1


def test_every_queue_is_served(sender: AmqpSender, storage: ProvenanceStorageInterface) -> None:
    sent: list[str] = []
    for range_number in range(16):
        id = content_id("everywhere", range_number)
        for relation in RelationType:
            key = binding_key(Operation(WriteMethod.RELATION_ADD, relation), range_number)
            row = (id, b"d" * 20, b"a/path" if relation.has_path else None)
            sent.append(sender.publish(relation.source.value, key, encode_package([row])))
    assert sender.replies_to(*sent) == [1] * len(sent)
    assert {Exchange(relation.source.value) for relation in RelationType} <= set(Exchange)
