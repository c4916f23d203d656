"""The batches of an index: how many are written at once, and what a failure stops.

test_index_properties and test_several_indexers have the order of stages: every date is true when it is sent.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import pytest

from provgate_client.git.batch import Batch
from provgate_client.git.calls import StorageCalls
from provgate_client.git.pipeline import BatchWriter
from provgate_client.git.progress import ProgressMeter
from provgate_client.git.settings import IndexSettings
from provgate_storage.errors import StorageError
from provgate_storage.model import EntityType, Id
from tests.support.reference import InMemoryProvenanceStorage

DATE = datetime(2020, 1, 2, tzinfo=UTC)
IDS = [bytes([n]) * 20 for n in range(4)]


def batch_of(id: Id) -> Batch:
    """A batch with a date in each of the last stages but one."""
    batch = Batch()
    batch.content_dates[id] = batch.directory_dates[id] = DATE
    return batch


def writer_of(storage: InMemoryProvenanceStorage, in_flight_max: int) -> BatchWriter:
    meter = ProgressMeter(None)
    return BatchWriter(storage, StorageCalls(meter, 60), meter, IndexSettings(batches_in_flight=in_flight_max))


class Meeting(InMemoryProvenanceStorage):
    """Answers the writes of contents only when two are there at once."""

    def __init__(self) -> None:
        super().__init__()
        self.both = threading.Barrier(2, timeout=30)

    def content_add(self, cnts: Iterable[Id] | Mapping[Id, datetime | None]) -> bool:
        self.both.wait()
        return super().content_add(cnts)


def test_several_batches_are_in_flight() -> None:
    storage = Meeting()
    with writer_of(storage, 2) as writer:
        writer.submit(batch_of(IDS[0]))
        writer.submit(batch_of(IDS[1]))
        writer.drain()
    assert storage.entity_get_all(EntityType.DIRECTORY) == set(IDS[:2])


def test_no_more_batches_are_in_flight_than_allowed() -> None:
    storage = InMemoryProvenanceStorage()
    with writer_of(storage, 1) as writer:
        for id in IDS[:2]:
            writer.submit(batch_of(id))
        assert storage.entity_get_all(EntityType.DIRECTORY) >= {IDS[0]}


class Failing(InMemoryProvenanceStorage):
    """Refuses the content of one batch."""

    def content_add(self, cnts: Iterable[Id] | Mapping[Id, datetime | None]) -> bool:
        if IDS[1] in cnts:
            raise StorageError("refused")
        return super().content_add(cnts)


def test_a_failure_keeps_its_batch_and_all_later_ones_out_of_the_next_stage() -> None:
    storage = Failing()

    def write() -> None:
        with writer_of(storage, 4) as writer:
            for id in IDS:
                writer.submit(batch_of(id))
            writer.drain()

    with pytest.raises(StorageError, match="refused"):
        write()
    assert storage.entity_get_all(EntityType.DIRECTORY) == {IDS[0]}


def test_leaving_by_an_exception_waits_and_starts_nothing_more() -> None:
    begun, go = threading.Event(), threading.Event()

    class Slow(InMemoryProvenanceStorage):
        def content_add(self, cnts: Iterable[Id] | Mapping[Id, datetime | None]) -> bool:
            begun.set()
            go.wait(30)
            return super().content_add(cnts)

    storage = Slow()

    def interrupted() -> None:
        with writer_of(storage, 1) as writer:
            writer.submit(batch_of(IDS[0]))
            assert begun.wait(30)
            threading.Timer(0.05, go.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert storage.entity_get_all(EntityType.CONTENT) == {IDS[0]}
    assert storage.entity_get_all(EntityType.DIRECTORY) == set()
