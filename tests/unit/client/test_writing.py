from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from provgate.v1.provenance_storage_pb2 import WithPathRequest
from provgate_client.adapter.progress import WriteLedger, WriteProgress
from provgate_client.adapter.writing import RequestFeed
from provgate_client.errors import (
    CallError,
    CallTimeoutError,
    FailedPreconditionError,
    FieldViolation,
    GatewayBusyError,
    GatewayUnavailableError,
    InvalidRequestError,
    NotImplementedByGatewayError,
    PermissionDeniedError,
    RetryableCallError,
    StorageClosedError,
    UnauthenticatedError,
)
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_storage import EntityType, RelationData, RelationType
from tests.support.gateway_double import Fault, GatewayDouble, retry_info
from tests.unit.client.conftest import DATE, UNAVAILABLE, OpenStorage, make_ids


def test_a_checkpoint_is_where_all_received_entries_are_acked() -> None:
    ledger = WriteLedger()
    assert ledger.start_call() == 0
    assert ledger.record(WriteProgress(100, 100, 100))
    assert ledger.record(WriteProgress(300, 300, 299))
    assert ledger.checkpoint_count == 100
    assert ledger.start_call() == 100
    assert not ledger.record(WriteProgress(200, 200, 199))
    assert ledger.record(WriteProgress(250, 250, 250))
    assert ledger.checkpoint_count == 350
    assert ledger.progress == WriteProgress(350, 350, 350)


class Meanwhile(threading.Condition):
    """When a thread would wait, the next of some events happens instead."""

    def __init__(self, *events: Callable[[], None]) -> None:
        super().__init__()
        self.events = list(events)

    def wait(self, timeout: float | None = None) -> bool:
        self.events.pop(0)()
        return True


def test_a_feed_waits_until_all_its_entries_are_acked_or_it_is_closed() -> None:
    requests: list[tuple[int, Message]] = [(5, WithPathRequest()) for _ in range(5)]
    feed = RequestFeed(iter(requests), checkpoint_count=10)
    feed._condition = meanwhile = Meanwhile(lambda: feed.acked(9), lambda: feed.acked(10), feed.close)
    assert [request for _, request in requests[:4]] == list(feed)
    assert not meanwhile.events
    assert feed.sent_count == 20


@given(st.lists(st.lists(st.tuples(*[st.integers(0, 100)] * 3).map(sorted), max_size=5), max_size=5))
def test_the_checkpoint_never_passes_what_was_acked(calls: list[list[list[int]]]) -> None:
    ledger = WriteLedger()
    for counts in calls:
        start, before = ledger.start_call(), ledger.progress
        for acked, published, received in counts:
            known = ledger.progress
            assert ledger.record(WriteProgress(received, published, acked)) == (ledger.progress != known)
            assert ledger.checkpoint_count <= ledger.progress.acked_count
            assert ledger.progress.acked_count >= max(before.acked_count, start + acked)
            if acked == received:
                assert ledger.checkpoint_count >= start + acked


class TestMessages:
    def test_by_count(self, open_storage: OpenStorage, gateway: GatewayDouble) -> None:
        assert open_storage(message_entries=1000).content_add(make_ids(2500))
        assert gateway.seen.message_counts == [1000, 1000, 500]

    def test_by_bytes(self, storage: ProvenanceStorageGrpc, gateway: GatewayDouble) -> None:
        rows = {RelationData(each, b"\xff" * 4096) for each in make_ids(3000)}
        assert storage.relation_add(RelationType.CNT_IN_DIR, {bytes(20): rows})
        assert sum(gateway.seen.message_counts) == 3000
        assert max(gateway.seen.message_bytes) <= 3 * 1024 * 1024
        assert len(gateway.seen.message_counts) <= 6

    def test_they_grow(self, storage: ProvenanceStorageGrpc, gateway: GatewayDouble) -> None:
        assert storage.content_add(dict.fromkeys(make_ids(100_000), DATE))
        assert gateway.seen.message_counts == [10_000, 20_000, 30_000, 30_000, 10_000]


class TestResend:
    def test_from_the_last_checkpoint(self, open_storage: OpenStorage, gateway: GatewayDouble) -> None:
        gateway.faults += [Fault(UNAVAILABLE, after_messages=3), Fault(UNAVAILABLE, after_messages=1, acks=False)]
        ids = make_ids(1000)
        assert open_storage(message_entries=100).content_add(ids)
        assert gateway.seen.calls == ["ContentAdd"] * 3
        # 3 messages, acked; 1 that is not; the 7 that are left.
        assert len(gateway.seen.message_counts) == 3 + 1 + 7
        assert gateway.storage.entity_get_all(EntityType.CONTENT) == set(ids)

    def test_an_ack_count_without_checkpoint_starts_again(
        self, open_storage: OpenStorage, gateway: GatewayDouble
    ) -> None:
        gateway.faults.append(Fault(UNAVAILABLE, after_messages=3, acks=False))
        assert open_storage(message_entries=100).content_add(make_ids(500))
        assert len(gateway.seen.message_counts) == 3 + 5

    def test_it_waits_for_acks_after_checkpoint_entries(
        self, open_storage: OpenStorage, gateway: GatewayDouble
    ) -> None:
        limits = {"message_entries": 100, "checkpoint_entries": 200}
        assert open_storage(**limits).content_add(make_ids(1000))
        assert len(gateway.seen.message_counts) == 10
        gateway.faults.append(Fault(UNAVAILABLE, after_messages=99, acks=False))
        assert open_storage(**limits, write_timeout_s=0.5, retry_time_s=0).content_add(make_ids(1000)) is False
        assert len(gateway.seen.message_counts) == 12

    def test_the_gateway_s_delay_is_honoured(self, storage: ProvenanceStorageGrpc, gateway: GatewayDouble) -> None:
        gateway.faults.append(Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, details=(retry_info(0.8),)))
        start_s = time.monotonic()
        assert storage.content_add(make_ids(1))
        assert time.monotonic() - start_s >= 0.8

    @pytest.mark.parametrize(
        "code",
        [
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.INTERNAL,
            grpc.StatusCode.ABORTED,
        ],
    )
    def test_other_failures_are_left_to_the_caller(
        self, storage: ProvenanceStorageGrpc, gateway: GatewayDouble, code: grpc.StatusCode
    ) -> None:
        gateway.faults.append(Fault(code))
        assert storage.content_add(make_ids(1)) is False
        assert gateway.seen.calls == ["ContentAdd"]

    def test_the_bound(self, open_storage: OpenStorage, gateway: GatewayDouble) -> None:
        gateway.faults += [Fault(UNAVAILABLE)] * 100
        start_s = time.monotonic()
        assert open_storage(retry_time_s=0.5).content_add(make_ids(1)) is False
        assert time.monotonic() - start_s < 1
        assert len(gateway.seen.calls) >= 2

    def test_progress_extends_the_bound(self, open_storage: OpenStorage, gateway: GatewayDouble) -> None:
        gateway.faults += [Fault(UNAVAILABLE, after_messages=1)] * 9
        assert open_storage(retry_time_s=3, message_entries=10).content_add(make_ids(100))
        assert len(gateway.seen.message_counts) == 10

    def test_closing_ends_the_wait(self, open_storage: OpenStorage, gateway: GatewayDouble) -> None:
        storage = open_storage()
        gateway.faults.append(Fault(UNAVAILABLE, details=(retry_info(30),)))
        timer = threading.Timer(0.3, storage.close)
        timer.start()
        with pytest.raises(StorageClosedError):
            storage.content_add(make_ids(1))
        timer.join()


class TestFailures:
    @pytest.mark.parametrize(
        ("code", "error"),
        [
            (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequestError),
            (grpc.StatusCode.PERMISSION_DENIED, PermissionDeniedError),
            (grpc.StatusCode.UNAUTHENTICATED, UnauthenticatedError),
            (grpc.StatusCode.UNIMPLEMENTED, NotImplementedByGatewayError),
            (grpc.StatusCode.FAILED_PRECONDITION, FailedPreconditionError),
        ],
    )
    def test_refusals_raise(
        self, storage: ProvenanceStorageGrpc, gateway: GatewayDouble, code: grpc.StatusCode, error: type[CallError]
    ) -> None:
        gateway.faults.append(Fault(code))
        with pytest.raises(error, match="content_add: told to fail"):
            storage.content_add(make_ids(1))
        assert gateway.seen.calls == ["ContentAdd"]
        assert storage.content_add(make_ids(1))

    @pytest.mark.parametrize(
        ("code", "error"),
        [
            (UNAVAILABLE, GatewayUnavailableError),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, GatewayBusyError),
            (grpc.StatusCode.DEADLINE_EXCEEDED, CallTimeoutError),
            (grpc.StatusCode.INTERNAL, RetryableCallError),
            (grpc.StatusCode.ABORTED, RetryableCallError),
        ],
    )
    def test_the_others_return_false_or_raise(
        self, open_storage: OpenStorage, gateway: GatewayDouble, code: grpc.StatusCode, error: type[CallError]
    ) -> None:
        gateway.faults += [Fault(code), Fault(code)]
        assert open_storage(retry_time_s=0).content_add(make_ids(1)) is False
        with pytest.raises(error):
            open_storage(retry_time_s=0, raise_on_failure=True).content_add(make_ids(1))

    def test_the_status_tells_all(self, storage: ProvenanceStorageGrpc, gateway: GatewayDouble) -> None:
        counts = {"received_count": "30", "published_count": "20", "acked_count": "10"}
        info = error_details_pb2.ErrorInfo(reason="INVALID_ID", domain="provgate", metadata=counts)
        violation = {"field": "contents[17].id", "description": "an id is 20 bytes"}
        request = error_details_pb2.BadRequest(field_violations=[violation])
        gateway.faults.append(Fault(grpc.StatusCode.INVALID_ARGUMENT, details=(info, request), message="bad entry"))
        with pytest.raises(InvalidRequestError) as caught:
            storage.content_add(make_ids(1))
        assert str(caught.value) == "content_add: bad entry (contents[17].id: an id is 20 bytes)"
        status = caught.value.status
        assert status.code is grpc.StatusCode.INVALID_ARGUMENT
        assert status.reason == "INVALID_ID"
        assert status.violations == (FieldViolation("contents[17].id", "an id is 20 bytes"),)
        assert status.counts == WriteProgress(30, 20, 10)
        assert dict(status.metadata) == counts

    def test_an_early_ok_is_no_success(self, storage: ProvenanceStorageGrpc, gateway: GatewayDouble) -> None:
        gateway.faults.append(Fault(grpc.StatusCode.OK, after_messages=1, acks=False))
        assert storage.content_add(make_ids(1)) is False


class TestInterruption:
    @pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError])
    def test_it_cancels_the_call(
        self, open_storage: OpenStorage, gateway: GatewayDouble, interruption: type[BaseException]
    ) -> None:
        def interrupt(method: str, progress: WriteProgress) -> None:
            raise interruption

        storage = open_storage(progress=interrupt, message_entries=10, checkpoint_entries=10)
        with pytest.raises(interruption):
            storage.content_add(make_ids(1000))
        assert gateway.seen.ended.wait(5)
        assert len(gateway.seen.message_counts) < 100

    def test_a_collection_that_changes_is_the_caller_s_error(
        self, open_storage: OpenStorage, gateway: GatewayDouble
    ) -> None:
        contents: dict[bytes, datetime | None] = dict.fromkeys(make_ids(1000))
        storage = open_storage(
            progress=lambda method, progress: contents.update({b"x" * 20: None}),
            message_entries=10,
            checkpoint_entries=10,
        )
        with pytest.raises(RuntimeError, match="changed size"):
            storage.content_add(contents)
        assert open_storage().content_add(contents)


class TestProgress:
    def test_counts_never_decrease(self, open_storage: OpenStorage, gateway: GatewayDouble) -> None:
        seen: list[tuple[str, WriteProgress]] = []
        gateway.faults.append(Fault(UNAVAILABLE, after_messages=3, acks=False))
        storage = open_storage(progress=lambda *told: seen.append(told), message_entries=100)
        assert storage.content_add(make_ids(1000))
        assert {method for method, _ in seen} == {"content_add"}
        for name in ("received_count", "published_count", "acked_count"):
            counts = [getattr(progress, name) for _, progress in seen]
            assert counts == sorted(counts)
        assert seen[-1][1] == WriteProgress(1000, 1000, 1000)


class TestThreads:
    def test_eight_over_one_storage(self, open_storage: OpenStorage, gateway: GatewayDouble) -> None:
        storage = open_storage(message_entries=2000)
        groups = [make_ids(20_000, first=20_000 * number) for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(storage.content_add, groups)) == [True] * 8
        assert len(gateway.storage.entity_get_all(EntityType.CONTENT)) == 160_000
