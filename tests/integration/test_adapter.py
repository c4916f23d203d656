"""The adapter over a gateway, a broker, workers and a database that run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

from provgate.v1 import provenance_storage_pb2 as service
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_client.adapter.progress import WriteProgress
from provgate_client.errors import InvalidRequestError, StorageClosedError
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_stack.stack import Stack
from provgate_storage import RelationData, RelationType, RevisionData

DATE = datetime(2004, 2, 29, tzinfo=UTC)


def make_ids(count: int, first: int) -> list[bytes]:
    # Spread over all ranges: the first byte tells the range.
    return [
        ((number * 2654435761) % 2**32).to_bytes(4, "big") + number.to_bytes(16, "big")
        for number in range(first, first + count)
    ]


def test_eight_threads_over_one_adapter(shared_stack: Stack) -> None:
    groups = [dict.fromkeys(make_ids(20_000, first=20_000 * number), DATE) for number in range(8)]
    with ProvenanceStorageGrpc(url=shared_stack.address) as storage, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(storage.content_add, groups)) == [True] * 8
        for group in groups:
            assert storage.content_get(group) == group


def test_progress_ends_with_everything_acked(shared_stack: Stack) -> None:
    seen: list[tuple[str, WriteProgress]] = []
    rows = {src: {RelationData(src, b"x" * 4096)} for src in make_ids(3000, first=1_000_000)}
    with ProvenanceStorageGrpc(url=shared_stack.address, progress=lambda *told: seen.append(told)) as storage:
        assert storage.relation_add(RelationType.CNT_IN_DIR, rows)
        assert storage.relation_get(RelationType.CNT_IN_DIR, rows) == rows
    assert seen[-1] == ("relation_add", WriteProgress(3000, 3000, 3000))
    assert [each for _, each in seen] == sorted((each for _, each in seen), key=lambda each: each.acked_count)


def test_what_the_gateway_refuses_is_a_typed_error(shared_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_check(value: Any) -> Any:
        return value

    monkeypatch.setattr("provgate_client.adapter.messages.check_id", without_check)
    with ProvenanceStorageGrpc(url=shared_stack.address) as storage:
        with pytest.raises(InvalidRequestError) as caught:
            storage.content_add([*make_ids(17, first=4_000_000), b"short"])
        assert caught.value.status.reason == "INVALID_ID"
        assert [each.field for each in caught.value.status.violations] == ["columns[0].ids[17]"]
        assert caught.value.status.counts == WriteProgress(0, 0, 0)
        assert storage.content_add(make_ids(1, first=4_000_000))


def test_the_largest_messages_pass(shared_stack: Stack) -> None:
    with ProvenanceStorageGrpc(url=shared_stack.address, message_entries=100_000) as storage:
        assert storage.revision_add({each: RevisionData(DATE, each) for each in make_ids(100_000, first=5_000_000)})


def test_a_message_over_four_mebibytes_is_refused_by_the_gateway(shared_stack: Stack) -> None:
    request = service.LocationAddRequest(paths=[b"x" * 4096] * 1100)
    with grpc.insecure_channel(shared_stack.address) as channel, pytest.raises(grpc.RpcError) as caught:
        list(ProvenanceStorageStub(channel).LocationAdd(iter([request])))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_closing_during_a_write(shared_stack: Stack) -> None:
    storage = ProvenanceStorageGrpc(url=shared_stack.address, progress=lambda method, progress: storage.close())
    storage.open()
    with pytest.raises(StorageClosedError):
        storage.content_add(make_ids(100_000, first=6_000_000))
