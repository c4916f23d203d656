"""What one client does to another: nothing, whatever class of calls it keeps busy."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import psycopg2
import pytest

from provgate.v1 import model_pb2
from provgate.v1 import provenance_storage_pb2 as pb2
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_stack.processes.programs import GatewayProgram
from provgate_stack.stack import Stack
from tests.faults.footprint import MIB, Footprint
from tests.faults.resetter import Resetter
from tests.support.gateway_calls import (
    SERVICE,
    OpenWrite,
    Outcome,
    connected,
    contents,
    outcome_of,
    outcome_of_unary,
    progress_of,
    write,
)
from tests.support.link import Link
from tests.support.polling import eventually
from tests.support.scripted_workers import ScriptedWorkers
from tests.support.watch_port import value

logger = logging.getLogger(__name__)

pytestmark = pytest.mark.faults

HOT = b"\x01" * 20
COLD = b"\x02" * 20
OCCURRENCES = 300_000

FIRST_WAIT_S = 4.0
WAIT_MIN_S = 15.0
# Far more than a call takes that waits for nobody, far less than what the others hold.
ANSWER_S = 10.0

# The most ids of a request: 2.2 MB as they come, and some 10 MB more when they are taken apart.
IDS = 100_000
READS = 100
# Eight that have their turn take all of that, those that wait and what is refused only what came.
READS_GROWTH_MAX_BYTES = 300 * MIB

LARGE = pb2.RelationGetAllRequest(relation=model_pb2.RELATION_TYPE_REV_BEFORE_REV)

# A client that takes so few bytes ahead that what it does not read waits in the gateway.
NARROW = [("grpc.http2.lookahead_bytes", 1), ("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1)]
OF_ITS_OWN = [("grpc.use_local_subchannel_pool", 1)]


@pytest.fixture(scope="module")
def database(module_postgres_dsn: str, workerless_stack: Stack) -> None:
    """A content with many occurrences, one with a single one, and a relation with as many rows."""
    connection = psycopg2.connect(module_postgres_dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO content (id, date) VALUES (%s, now()), (%s, now())", (HOT, COLD))
        cursor.execute(
            "INSERT INTO revision (id, date) SELECT substr(sha256(n::text::bytea), 1, 20), now() - n * interval '1 s'"
            " FROM generate_series(1, %s) n",
            (OCCURRENCES,),
        )
        cursor.execute(
            "INSERT INTO content_in_revision SELECT %s, id, ('src/main/include/' || n)::bytea FROM"
            " (SELECT id, row_number() OVER () AS n FROM revision) AS numbered",
            (HOT,),
        )
        cursor.execute(
            "INSERT INTO content_in_revision SELECT %s, id, 'README'::bytea FROM revision LIMIT 1",
            (COLD,),
        )
        cursor.execute("INSERT INTO revision_before_revision SELECT id, id FROM revision")
    connection.close()


@pytest.fixture(scope="module")
def module_gateway(workerless_stack: Stack, database: None) -> Iterator[GatewayProgram]:
    program = workerless_stack.start_gateway(first_message_wait=FIRST_WAIT_S, wait_min=WAIT_MIN_S)
    yield program
    assert program.terminate() == 0
    assert " ERROR provgate" not in program.log_path.read_text(encoding="utf-8")


@pytest.fixture
def gateway(module_gateway: GatewayProgram, scripted_workers: ScriptedWorkers) -> GatewayProgram:
    return module_gateway


@pytest.fixture
def other(gateway: GatewayProgram) -> Iterator[ProvenanceStorageStub]:
    """A second client, on another host."""
    host, _, port = gateway.address.rpartition(":")
    with Link(host, int(port), "127.0.0.2") as link, connected(f"127.0.0.1:{link.port}") as (_, stub):
        yield stub


def _transactions(dsn: str, use: str) -> int:
    """Returns how many transactions of one use (`read`, `stream`) there are in the database."""
    connection = psycopg2.connect(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle'"
                " AND application_name LIKE '%%' || %s",
                (use,),
            )
            (count,) = cursor.fetchone() or (0,)
            return int(count)
    finally:
        connection.close()


def _get(stub: ProvenanceStorageStub) -> Outcome:
    return outcome_of(stub.ContentGet(pb2.ContentGetRequest(ids=[HOT, COLD]), timeout=ANSWER_S))


def _first(stub: ProvenanceStorageStub, id: bytes = COLD, timeout_s: float = ANSWER_S) -> Outcome:
    return outcome_of_unary(lambda: stub.ContentFindFirst(pb2.ContentFindFirstRequest(id=id), timeout=timeout_s))


def _list(stub: ProvenanceStorageStub) -> Outcome:
    return outcome_of(stub.ContentFindAll(pb2.ContentFindAllRequest(id=COLD), timeout=ANSWER_S))


def _write(stub: ProvenanceStorageStub) -> Outcome:
    return write(stub.ContentAdd, [contents(1)], timeout_s=ANSWER_S)


def _check_answered(*calls: Callable[[], Outcome], times: int = 4) -> None:
    """Makes calls of a second client again and again, and checks that all are answered."""
    ended = [call() for _ in range(times) for call in calls]
    codes = Counter(outcome.code.name for outcome in ended)
    figures = f"of a second client {dict(codes)}, the slowest {max(outcome.elapsed_s for outcome in ended):.2f} s"
    logger.info(figures)
    assert codes == {"OK": len(ended)}, figures


@contextmanager
def _looping(call: Callable[[], object], count: int) -> Iterator[Counter[str]]:
    """Makes calls on so many threads for the time of a block; gives how they ended."""
    stopping, ended = threading.Event(), Counter[str]()

    def loop() -> None:
        while not stopping.is_set():
            outcome = call()
            ended[outcome.code.name if isinstance(outcome, Outcome) else "made"] += 1

    with ThreadPoolExecutor(count) as threads:
        running = [threads.submit(loop) for _ in range(count)]
        try:
            yield ended
        finally:
            stopping.set()
    for each in running:
        each.result()


def test_slow_listings_hold_up_neither_reads_by_id_nor_the_listings_of_others(
    gateway: GatewayProgram, other: ProvenanceStorageStub, module_postgres_dsn: str
) -> None:
    with grpc.insecure_channel(gateway.address, NARROW) as channel:
        slow = [ProvenanceStorageStub(channel).RelationGetAll(LARGE) for _ in range(16)]
        eventually(lambda: _transactions(module_postgres_dsn, "stream") >= 8, "they have all turns that they may", 30)
        with connected(gateway.address) as (_, same_host):
            _check_answered(lambda: _get(same_host), lambda: _first(same_host), lambda: _write(same_host))
        _check_answered(lambda: _get(other), lambda: _first(other), lambda: _list(other))
        for call in slow:
            call.cancel()


def test_listings_of_a_hot_content_hold_up_neither_reads_by_id_nor_the_listings_of_others(
    gateway: GatewayProgram, other: ProvenanceStorageStub
) -> None:
    with grpc.insecure_channel(gateway.address, OF_ITS_OWN) as channel:
        stub = ProvenanceStorageStub(channel)
        request = pb2.ContentFindAllRequest(id=HOT, limit=10)
        with _looping(lambda: outcome_of(stub.ContentFindAll(request, timeout=30)), 24) as ended:
            eventually(lambda: ended.total() > 0, "they have begun", 60)
            with connected(gateway.address) as (_, same_host):
                _check_answered(lambda: _get(same_host))
            _check_answered(lambda: _get(other), lambda: _first(other), lambda: _list(other))


def test_first_occurrences_of_a_hot_content_hold_one_thread(
    gateway: GatewayProgram, other: ProvenanceStorageStub, module_postgres_dsn: str
) -> None:
    with grpc.insecure_channel(gateway.address, OF_ITS_OWN) as channel:
        stub = ProvenanceStorageStub(channel)
        with _looping(lambda: _first(stub, HOT, 90.0), 16) as ended:
            eventually(lambda: ended.total() > 0, "they have begun", 60)
            running = [_transactions(module_postgres_dsn, "read") for _ in range(20)]
            logger.info("queries at once: %s", running)
            # One more is of the health service.
            assert max(running) <= 2, f"queries at once: {running}"
            with connected(gateway.address) as (_, same_host):
                _check_answered(lambda: _first(same_host))
            _check_answered(lambda: _first(other), lambda: _get(other))
            # Those who ask for the hot one are answered too, and all of them soon.
            eventually(lambda: ended["OK"] >= 32, "each was answered", 120)
        assert set(ended) == {"OK"}


async def _idle_writes(address: str, count: int, reached: Callable[[], None]) -> list[tuple[str, str]]:
    """Opens writes that send nothing, on connections of 100 each, and returns how they ended."""
    channels = [grpc.aio.insecure_channel(address, options=OF_ITS_OWN) for _ in range(count // 100)]
    calls = [ProvenanceStorageStub(channels[number % len(channels)]).ContentAdd() for number in range(count)]
    reading = [asyncio.create_task(call.read()) for call in calls]
    await asyncio.to_thread(reached)
    ended = await asyncio.gather(*reading, return_exceptions=True)
    for channel in channels:
        await channel.close()
    return [
        (error.code().name, error.details() or "") if isinstance(error, grpc.aio.AioRpcError) else ("", str(error))
        for error in ended
    ]


def test_writes_that_send_nothing_hold_up_nobody_and_end(gateway: GatewayProgram, other: ProvenanceStorageStub) -> None:
    ended: list[tuple[str, str]] = []

    def meanwhile() -> None:
        opened = OpenWrite(other)
        opened.send(contents(1))
        opened.wait_for(lambda progress: progress.acked_count == 1)
        with connected(gateway.address) as (_, same_host):
            eventually(lambda: not _write(same_host).ok, "they hold what they may", FIRST_WAIT_S)
            _check_answered(lambda: _first(same_host), lambda: _get(same_host), times=3)
        _check_answered(lambda: _first(other), lambda: _get(other), lambda: _write(other), times=3)
        assert opened.end().ok

    ended = asyncio.run(_idle_writes(gateway.address, 1000, meanwhile))
    logger.info("%s", Counter(ended))
    # One caller has three quarters of the 1,000 places, and of the memory for messages: 38 calls are read at once.
    silent, waiting = "the write sent no message in time", "too many writes wait"
    refused = "the limit of concurrent writes is reached, or this caller's share of it"
    counts = Counter(ended)
    assert counts.keys() == {
        ("DEADLINE_EXCEEDED", silent),
        ("RESOURCE_EXHAUSTED", waiting),
        ("RESOURCE_EXHAUSTED", refused),
    }
    assert counts["RESOURCE_EXHAUSTED", refused] == 250
    assert counts["DEADLINE_EXCEEDED", silent] >= 38


def test_a_write_that_sends_nothing_is_told_why_it_ends(other: ProvenanceStorageStub) -> None:
    outcome = progress_of(outcome_of(OpenWrite(other, timeout_s=None).call))
    assert (outcome.code, outcome.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "NO_PROGRESS")
    assert outcome.message == "the write sent no message in time"
    assert FIRST_WAIT_S - 0.5 < outcome.elapsed_s < FIRST_WAIT_S + ANSWER_S


def test_a_client_that_always_reads_too_slowly_loses_its_turn(workerless_stack: Stack, database: None) -> None:
    program = workerless_stack.start_gateway(listings=1, streamed_read_idle=2, streamed_read_rate=1_000_000)
    with (
        connected(program.address) as (_, stub),
        grpc.insecure_channel(program.address, NARROW) as channel,
        ExitStack() as stack,
    ):
        call = ProvenanceStorageStub(channel).RelationGetAll(LARGE)
        stack.callback(call.cancel)
        started_at = time.monotonic()
        # Each answer is taken well within the idle time, but it is of some 50 KB, and earns no more than 50 ms.
        with pytest.raises(grpc.RpcError) as raised:  # noqa: PT012
            while time.monotonic() < started_at + 30:
                next(call)
                time.sleep(0.5)
            pytest.fail(f"it still has its turn after {time.monotonic() - started_at:.0f} s")
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert outcome_of(stub.ContentFindAll(pb2.ContentFindAllRequest(id=COLD), timeout=ANSWER_S)).ok
        # Who reads as fast as it can is not ended, although it takes longer than the idle time allows.
        assert sum(len(response.relations) for response in stub.RelationGetAll(LARGE)) == OCCURRENCES
    assert program.terminate() == 0


async def _plain_calls(address: str, count: int) -> Counter[str]:
    """Makes so many ContentFindFirst at once, of contents of their own, and returns how they ended."""
    async with grpc.aio.insecure_channel(address, options=OF_ITS_OWN) as channel:
        stub = ProvenanceStorageStub(channel)

        async def call(number: int) -> str:
            try:
                request = pb2.ContentFindFirstRequest(id=number.to_bytes(20, "big"))
                await stub.ContentFindFirst(request, timeout=60)
            except grpc.aio.AioRpcError as error:
                return error.code().name + ("" if _has_details(error) else f" without a reason: {error.details()}")
            return "OK"

        return Counter(await asyncio.gather(*(call(number) for number in range(count))))


def _has_details(error: grpc.aio.AioRpcError) -> bool:
    return any(key == "grpc-status-details-bin" for key, _ in error.trailing_metadata() or ())


def test_thousands_of_plain_calls_at_once_end_well_or_with_a_reason(gateway: GatewayProgram) -> None:
    ended = asyncio.run(_plain_calls(gateway.address, 3000))
    logger.info("%s", ended)
    assert set(ended) <= {"OK", "RESOURCE_EXHAUSTED"}, ended
    assert ended["OK"] > 0


def test_beside_a_client_that_resets_its_calls_the_others_are_answered(
    gateway: GatewayProgram, other: ProvenanceStorageStub
) -> None:
    body = pb2.ContentFindFirstRequest(id=HOT).SerializeToString()
    with Resetter(gateway.address, f"/{SERVICE}/ContentFindFirst", body) as resetter:
        eventually(lambda: resetter.count > 10_000, "it resets calls", 60)
        with connected(gateway.address) as (_, same_host):
            _check_answered(lambda: _first(same_host), lambda: _first(other), times=10)
        ended = asyncio.run(_plain_calls(gateway.address, 500))
        logger.info("%s; %d reset", ended, resetter.count)
        assert set(ended) <= {"OK", "RESOURCE_EXHAUSTED"}, ended


def test_reads_that_wait_for_their_turn_hold_their_requests_as_they_came_and_no_more(
    gateway: GatewayProgram, module_postgres_dsn: str
) -> None:
    request = pb2.ContentGetRequest(ids=[number.to_bytes(20, "big") for number in range(IDS)])
    locked = psycopg2.connect(module_postgres_dsn)
    try:
        with locked.cursor() as cursor:
            cursor.execute("LOCK TABLE content IN ACCESS EXCLUSIVE MODE")
        with connected(gateway.address) as (_, stub):
            before = Footprint.of(gateway.pid)
            ended = Counter[str]()
            calls: list[Any] = []
            peak = before

            def have_come() -> bool:
                # What gRPC has received and no handler has yet is bounded by the calls of a connection, not here.
                running = value(gateway.metrics_address, "provgate_gateway_calls_in_flight", method="content_get")
                return ended.total() + running >= len(calls)

            for _ in range(READS):
                call: Any = stub.ContentGet(request, timeout=60)
                call.add_done_callback(lambda call: ended.update([call.code().name]))
                calls.append(call)
                eventually(have_come, "the gateway has the call", 30)
                peak = max(peak, Footprint.of(gateway.pid), key=lambda each: each.memory_bytes)
            # All but those that have a turn are refused: at once, or when no turn came in time.
            give_up_at = time.monotonic() + 60
            while ended["RESOURCE_EXHAUSTED"] < READS - 16 and time.monotonic() < give_up_at:
                peak = max(peak, Footprint.of(gateway.pid), key=lambda each: each.memory_bytes)
                time.sleep(0.05)
            figures = f"{dict(ended)}; {before}; at most {peak}"
            logger.info(figures)
            assert ended["RESOURCE_EXHAUSTED"] >= READS - 16, figures
            assert peak.memory_bytes - before.memory_bytes < READS_GROWTH_MAX_BYTES, figures
            for call in calls:
                call.cancel()
    finally:
        locked.close()
