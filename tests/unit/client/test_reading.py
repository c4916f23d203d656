from __future__ import annotations

import gc

import grpc
import pytest

from provgate_client.errors import (
    GatewayBusyError,
    GatewayUnavailableError,
    NotImplementedByGatewayError,
    StorageClosedError,
)
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_storage import RelationData, RelationType, RevisionData
from tests.unit.client.conftest import OpenStorage
from tests.unit.client.gateway import ENDLESS, Fault, GatewayDouble, retry_info
from tests.unit.client.test_writing import DATE, UNAVAILABLE, make_ids


def test_long_id_lists_are_cut(storage: ProvenanceStorageGrpc, gateway: GatewayDouble) -> None:
    dates = dict.fromkeys(make_ids(25_000), DATE)
    gateway.storage.content_add(dates)
    assert storage.content_get([*dates, *dates]) == dates
    assert gateway.seen.calls == ["ContentGet"] * 3


def test_reverse_rows_of_one_source_come_together(storage: ProvenanceStorageGrpc, gateway: GatewayDouble) -> None:
    rows = {bytes(20): {RelationData(each, b"") for each in make_ids(10_500, first=1)}}
    gateway.storage.relation_add(RelationType.CNT_IN_DIR, rows)
    assert storage.relation_get(RelationType.CNT_IN_DIR, make_ids(10_500, first=1), reverse=True) == rows
    assert gateway.seen.calls == ["RelationGet"] * 2


def test_a_gathered_read_is_repeated_after_half_an_answer(
    storage: ProvenanceStorageGrpc, gateway: GatewayDouble
) -> None:
    dates = dict.fromkeys(make_ids(1000), DATE)
    gateway.storage.content_add(dates)
    gateway.faults += [Fault(UNAVAILABLE, after_messages=5), Fault(UNAVAILABLE)]
    assert storage.content_get(dates) == dates
    assert gateway.seen.calls == ["ContentGet"] * 3


def test_a_unary_read_is_repeated(storage: ProvenanceStorageGrpc, gateway: GatewayDouble) -> None:
    gateway.faults.append(Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, details=(retry_info(0.01),)))
    assert storage.content_find_first(bytes(20)) is None
    assert len(gateway.seen.calls) == 2


def test_calls_that_somebody_else_cancelled_are_repeated(
    storage: ProvenanceStorageGrpc, gateway: GatewayDouble
) -> None:
    # gRPC's own shedding says no more than that, and so do proxies.
    cancelled = Fault(grpc.StatusCode.CANCELLED)
    gateway.faults.append(cancelled)
    assert storage.content_find_first(bytes(20)) is None
    gateway.faults.append(cancelled)
    assert storage.content_get([bytes(20)]) == {}
    gateway.faults.append(cancelled)
    assert storage.content_add({bytes(20): DATE})
    assert gateway.seen.calls == ["ContentFindFirst"] * 2 + ["ContentGet"] * 2 + ["ContentAdd"] * 2


def test_a_call_that_its_caller_cancels_is_not_repeated(open_storage: OpenStorage, gateway: GatewayDouble) -> None:
    storage = open_storage()
    results = storage.content_find_all(ENDLESS)
    next(results)
    storage.close()
    with pytest.raises(StorageClosedError):
        list(results)
    assert gateway.seen.ended.wait(10)
    assert gateway.seen.calls == ["ContentFindAll"]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (UNAVAILABLE, GatewayUnavailableError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, GatewayBusyError),
        (grpc.StatusCode.UNIMPLEMENTED, NotImplementedByGatewayError),
    ],
)
def test_reads_raise(
    open_storage: OpenStorage, gateway: GatewayDouble, code: grpc.StatusCode, error: type[Exception]
) -> None:
    storage = open_storage(retry_time_s=0)
    gateway.faults += [Fault(code)] * 3
    with pytest.raises(error, match="content_find_first"):
        storage.content_find_first(bytes(20))
    with pytest.raises(error, match="location_get_all"):
        storage.location_get_all()
    with pytest.raises(error, match="content_find_all"):
        list(storage.content_find_all(bytes(20)))


class TestFindAll:
    def _store(self, gateway: GatewayDouble) -> None:
        revisions = make_ids(250)
        gateway.storage.revision_add(dict.fromkeys(revisions, RevisionData(DATE, None)))
        rows = {bytes(20): {RelationData(each, b"a") for each in revisions}}
        gateway.storage.relation_add(RelationType.CNT_EARLY_IN_REV, rows)

    def test_is_repeated_before_its_first_row(self, storage: ProvenanceStorageGrpc, gateway: GatewayDouble) -> None:
        self._store(gateway)
        gateway.faults.append(Fault(UNAVAILABLE))
        assert len(list(storage.content_find_all(bytes(20)))) == 250

    def test_is_not_repeated_after_it(self, storage: ProvenanceStorageGrpc, gateway: GatewayDouble) -> None:
        self._store(gateway)
        gateway.faults.append(Fault(UNAVAILABLE, after_messages=1))
        results = storage.content_find_all(bytes(20))
        seen: list[object] = []
        with pytest.raises(GatewayUnavailableError):
            seen.extend(results)
        assert len(seen) == 100
        assert gateway.seen.calls == ["ContentFindAll"]

    def test_closing_cancels_the_call(self, storage: ProvenanceStorageGrpc, gateway: GatewayDouble) -> None:
        results = storage.content_find_all(ENDLESS)
        assert next(results).content == ENDLESS
        assert not gateway.seen.ended.is_set()
        results.close()
        assert gateway.seen.ended.wait(5)

    def test_forgetting_cancels_the_call(self, storage: ProvenanceStorageGrpc, gateway: GatewayDouble) -> None:
        results = storage.content_find_all(ENDLESS)
        next(results)
        del results
        gc.collect()
        assert gateway.seen.ended.wait(5)

    def test_nothing_is_asked_before_the_first_row_is(
        self, storage: ProvenanceStorageGrpc, gateway: GatewayDouble
    ) -> None:
        results = storage.content_find_all(ENDLESS)
        assert gateway.seen.calls == []
        results.close()
