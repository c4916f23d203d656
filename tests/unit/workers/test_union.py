"""What the gateway cuts and the workers put together again, in whatever order and however often, is what was sent."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from provgate_broker.topology.policy import OPERATIONS, Exchange, Operation, RangePolicy, WriteMethod, parse_binding_key
from provgate_gateway.write.splitting import Package, split
from provgate_storage.model import RevisionData
from provgate_workers.package import Stored
from provgate_workers.store.batch import store_batch
from tests.support.entries import Entry, add_entries, rows_of
from tests.support.examples import state_of
from tests.support.reference import InMemoryProvenanceStorage

# Few ids, spread over the ranges, so that entries meet.
IDS = st.sampled_from([bytes([first]) * 20 for first in (0, 15, 16, 127, 128, 255)])
DATES = st.none() | st.integers(1, 5).map(lambda day: datetime(2020, 1, day, tzinfo=UTC))
PATHS = st.sampled_from([b"", b"a", b"a/b", b"\xff"])


def entries_of(operation: Operation, origins: list[bytes], urls: list[str]) -> st.SearchStrategy[Entry]:
    if operation.relation is not None:
        return st.tuples(IDS, IDS, PATHS if operation.relation.has_path else st.none())
    dated = st.tuples(IDS) | st.tuples(IDS, DATES)
    revision = st.builds(RevisionData, DATES, st.none() | st.sampled_from(origins))
    return {
        WriteMethod.CONTENT_ADD: dated,
        WriteMethod.DIRECTORY_ADD: dated,
        WriteMethod.LOCATION_ADD: st.tuples(PATHS),
        WriteMethod.ORIGIN_ADD: st.tuples(IDS, st.sampled_from(urls)),
        WriteMethod.REVISION_ADD: st.tuples(IDS) | st.tuples(IDS, revision),
    }[operation.method]


def writes(origins: list[bytes], urls: list[str]) -> st.SearchStrategy[tuple[Operation, list[Entry]]]:
    return st.sampled_from(OPERATIONS).flatmap(
        lambda operation: st.tuples(st.just(operation), st.lists(entries_of(operation, origins, urls), max_size=30))
    )


def new_storage() -> InMemoryProvenanceStorage:
    storage = InMemoryProvenanceStorage()
    storage.open()
    return storage


def deliver(storage: InMemoryProvenanceStorage, policy: RangePolicy, packages: list[Package]) -> None:
    """Stores packages of one queue as a worker does, in one batch."""
    operation, range_number = parse_binding_key(packages[0].routing_key)
    report = store_batch(storage, policy, operation, [(range_number, package.body) for package in packages])
    assert report.outcomes == [Stored(package.entry_count) for package in packages]
    assert not report.stray_row_counts


@settings(deadline=None)
@given(
    # With one origin and one url there are no registers, whose rule is one of order.
    st.lists(writes([b"o" * 20], ["url"]), max_size=4),
    st.sampled_from([1, 2, 16, 256]),
    st.integers(1, 5),
    st.data(),
)
def test_packages_in_any_order_and_any_number_leave_what_was_sent(
    sent: list[tuple[Operation, list[Entry]]], range_count: int, batch_size: int, data: st.DataObject
) -> None:
    policy = RangePolicy(dict.fromkeys(Exchange, range_count))
    expected, found = new_storage(), new_storage()
    packages: list[Package] = []
    for operation, entries in sent:
        add_entries(expected, operation, entries)
        packages += split(operation, rows_of(entries, operation), policy, batch_size)
    again = data.draw(st.lists(st.sampled_from(packages), max_size=5)) if packages else []
    rest = data.draw(st.permutations(packages + again))
    while rest:
        # A batch: some of what waits in one queue.
        queue = [package for package in rest if package.routing_key == rest[0].routing_key]
        batch = queue[: data.draw(st.integers(1, len(queue)))]
        deliver(found, policy, batch)
        for package in batch:
            rest.remove(package)
    assert state_of(found) == state_of(expected)


@settings(deadline=None)
@given(writes([b"o" * 20, b"p" * 20, b"q" * 20], ["a", "b", "c"]), st.integers(1, 5))
def test_packages_in_their_order_leave_registers_as_sent_too(
    sent: tuple[Operation, list[Entry]], batch_size: int
) -> None:
    operation, entries = sent
    policy = RangePolicy()
    expected, found = new_storage(), new_storage()
    for entry in entries:
        add_entries(expected, operation, [entry])
    queues: dict[str, list[Package]] = {}
    for package in split(operation, rows_of(entries, operation), policy, batch_size):
        queues.setdefault(package.routing_key, []).append(package)
    for packages in queues.values():
        deliver(found, policy, packages)
    assert state_of(found) == state_of(expected)
