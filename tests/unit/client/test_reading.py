"""Reads: how ids are cut, which calls are repeated, and what cancels them."""

from __future__ import annotations

import gc

import grpc
import pytest

from provgate_client.errors import (
    CallError,
    GatewayBusyError,
    GatewayUnavailableError,
    NotImplementedByGatewayError,
    StorageClosedError,
)
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_storage import RelationData, RelationType, RevisionData
from tests.support.gateway_double import ENDLESS, Fault, GatewayDouble, retry_info
from tests.unit.client.conftest import DATE, UNAVAILABLE, OpenStorage, make_ids


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


def test_a_collected_read_is_repeated_after_half_an_answer(
    storage: ProvenanceStorageGrpc, gateway: GatewayDouble
) -> None:
    dates = dict.fromkeys(make_ids(1000), DATE)
    gateway.storage.content_add(dates)
    gateway.faults += [Fault(UNAVAILABLE, after_messages=5), Fault(UNAVAILABLE)]
    assert storage.content_get(dates) == dates
    assert gateway.seen.calls == ["ContentGet"] * 3


@pytest.mark.parametrize(
    "fault",
    [
        Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, details=(retry_info(0.01),)),
        Fault(grpc.StatusCode.DEADLINE_EXCEEDED, details=(retry_info(0.01),)),
        # gRPC itself cancels calls when it sheds load, and so do proxies.
        Fault(grpc.StatusCode.CANCELLED),
    ],
)
def test_calls_of_all_kinds_are_repeated(storage: ProvenanceStorageGrpc, gateway: GatewayDouble, fault: Fault) -> None:
    gateway.faults.append(fault)
    assert storage.content_find_first(bytes(20)) is None
    gateway.faults.append(fault)
    assert storage.content_get([bytes(20)]) == {}
    gateway.faults.append(fault)
    assert storage.content_add({bytes(20): DATE})
    assert gateway.seen.calls == ["ContentFindFirst"] * 2 + ["ContentGet"] * 2 + ["ContentAdd"] * 2


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (UNAVAILABLE, GatewayUnavailableError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, GatewayBusyError),
        (grpc.StatusCode.UNIMPLEMENTED, NotImplementedByGatewayError),
    ],
)
def test_reads_raise(
    open_storage: OpenStorage, gateway: GatewayDouble, code: grpc.StatusCode, error: type[CallError]
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
    @pytest.mark.parametrize(("after_messages", "expected"), [(0, 250), (1, 100)])
    def test_is_repeated_only_before_its_first_row(
        self, storage: ProvenanceStorageGrpc, gateway: GatewayDouble, after_messages: int, expected: int
    ) -> None:
        revisions = make_ids(250)
        gateway.storage.revision_add(dict.fromkeys(revisions, RevisionData(DATE, None)))
        rows = {bytes(20): {RelationData(each, b"a") for each in revisions}}
        gateway.storage.relation_add(RelationType.CNT_EARLY_IN_REV, rows)
        gateway.faults.append(Fault(UNAVAILABLE, after_messages=after_messages))
        seen: list[object] = []
        try:
            seen.extend(storage.content_find_all(bytes(20)))
        except GatewayUnavailableError:
            assert after_messages
        assert len(seen) == expected
        assert len(gateway.seen.calls) == (1 if after_messages else 2)

    def test_nothing_is_asked_before_the_first_row_is(
        self, storage: ProvenanceStorageGrpc, gateway: GatewayDouble
    ) -> None:
        storage.content_find_all(ENDLESS).close()
        assert gateway.seen.calls == []

    @pytest.mark.parametrize("how", ["close", "forget"])
    def test_leaving_the_generator_cancels_the_call(
        self, storage: ProvenanceStorageGrpc, gateway: GatewayDouble, how: str
    ) -> None:
        results = storage.content_find_all(ENDLESS)
        assert next(results).content == ENDLESS
        assert not gateway.seen.ended.is_set()
        if how == "close":
            results.close()
        del results
        gc.collect()
        assert gateway.seen.ended.wait(30)

    def test_closing_the_storage_ends_it_and_it_is_not_repeated(
        self, storage: ProvenanceStorageGrpc, gateway: GatewayDouble
    ) -> None:
        results = storage.content_find_all(ENDLESS)
        next(results)
        storage.close()
        with pytest.raises(StorageClosedError):
            list(results)
        assert gateway.seen.ended.wait(30)
        assert gateway.seen.calls == ["ContentFindAll"]
