"""A client that keeps one class of calls busy does not hold up the calls of other clients, or of other classes."""

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
import pytest

from provgate.v1 import model_pb2
from provgate.v1 import provenance_storage_pb2 as pb2
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_stack.processes.programs import GatewayProgram
from tests.faults.footprint import MIB, Footprint
from tests.faults.hostile_clients import Resetter
from tests.faults.postgresql import execute, locked, query
from tests.faults.system import System
from tests.support.gateway_calls import (
    SERVICE,
    OpenWrite,
    Outcome,
    check_exhausted,
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
OCCURRENCES = 150_000

# Much longer than a thousand calls take to begin on a busy machine.
FIRST_WAIT_S = 8.0
WAIT_MIN_S = 8.0
SHORT_FIRST_WAIT_S = 2.0
# Much longer than a call takes that waits for nobody, and shorter than the time for which the others hold their turns.
ANSWER_S = 10.0

# The most ids of a request: 2.2 MB as they come, and some 10 MB more when they are taken apart.
IDS = 100_000
READS = 100
# The eight reads that have a turn take all of that; those that wait take their requests as they came.
READS_GROWTH_MAX_BYTES = 300 * MIB

LARGE = pb2.RelationGetAllRequest(relation=model_pb2.RELATION_TYPE_REV_BEFORE_REV)

# A client that takes so few bytes ahead that what it does not read waits in the gateway.
NARROW = [("grpc.http2.lookahead_bytes", 1), ("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1)]
OF_ITS_OWN = [("grpc.use_local_subchannel_pool", 1)]


@pytest.fixture(scope="module")
def database(scripted_system: System) -> str:
    """The DSN of a database with a content of many occurrences, one of a single one, and a relation of many rows."""
    execute(
        scripted_system.dsn,
        f"""INSERT INTO content (id, date) VALUES ('\\x{HOT.hex()}', now()), ('\\x{COLD.hex()}', now());
        INSERT INTO revision (id, date) SELECT substr(sha256(n::text::bytea), 1, 20), now() - n * interval '1 s'
            FROM generate_series(1, {OCCURRENCES}) n;
        INSERT INTO content_in_revision SELECT '\\x{HOT.hex()}', id, ('src/main/include/' || n)::bytea
            FROM (SELECT id, row_number() OVER () AS n FROM revision) AS numbered;
        INSERT INTO content_in_revision SELECT '\\x{COLD.hex()}', id, 'README'::bytea FROM revision LIMIT 1;
        INSERT INTO revision_before_revision SELECT id, id FROM revision""",
    )
    return scripted_system.dsn


@pytest.fixture(scope="module")
def module_gateway(
    scripted_system: System, module_scripted_workers: ScriptedWorkers, database: str
) -> Iterator[GatewayProgram]:
    program = scripted_system.stack.start_gateway(first_message_wait=FIRST_WAIT_S, wait_min=WAIT_MIN_S)
    yield program
    assert program.terminate() == 0
    assert " ERROR provgate" not in program.log_path.read_text(encoding="utf-8")


@pytest.fixture
def gateway(module_gateway: GatewayProgram, scripted_workers: ScriptedWorkers) -> GatewayProgram:
    return module_gateway


@pytest.fixture(scope="module")
def strict_gateway(scripted_system: System, database: str) -> Iterator[GatewayProgram]:
    """A gateway of one listing at a time, which soon ends calls that make no progress."""
    program = scripted_system.stack.start_gateway(
        listings=1, streamed_read_idle=2, streamed_read_rate=1_000_000, first_message_wait=SHORT_FIRST_WAIT_S
    )
    yield program
    assert program.terminate() == 0


@pytest.fixture
def other(gateway: GatewayProgram) -> Iterator[ProvenanceStorageStub]:
    """A second client, on another host."""
    host, _, port = gateway.address.rpartition(":")
    with Link(host, int(port), "127.0.0.2") as link, connected(f"127.0.0.1:{link.port}") as (_, stub):
        yield stub


def transaction_count(dsn: str, use: str) -> int:
    """Returns how many transactions of one use (`read`, `stream`) the gateway has in the database."""
    ((count,),) = query(
        dsn,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle'"
        f" AND application_name LIKE '%{use}'",
    )
    return int(count)


def get_by_id(stub: ProvenanceStorageStub) -> Outcome:
    return outcome_of(stub.ContentGet(pb2.ContentGetRequest(ids=[HOT, COLD]), timeout=ANSWER_S))


def find_first(stub: ProvenanceStorageStub, id: bytes = COLD, timeout_s: float = ANSWER_S) -> Outcome:
    return outcome_of_unary(lambda: stub.ContentFindFirst(pb2.ContentFindFirstRequest(id=id), timeout=timeout_s))


def list_occurrences(stub: ProvenanceStorageStub) -> Outcome:
    return outcome_of(stub.ContentFindAll(pb2.ContentFindAllRequest(id=COLD), timeout=ANSWER_S))


def write_one(stub: ProvenanceStorageStub) -> Outcome:
    return write(stub.ContentAdd, [contents(1)], timeout_s=ANSWER_S)


def check_answered(stub: ProvenanceStorageStub, *calls: Callable[[ProvenanceStorageStub], Outcome]) -> None:
    """Makes calls of a second client again and again, and checks that all are answered."""
    ended = [call(stub) for _ in range(4) for call in calls]
    codes = Counter(outcome.code.name for outcome in ended)
    figures = f"of a second client {dict(codes)}, the slowest {max(outcome.elapsed_s for outcome in ended):.2f} s"
    logger.info(figures)
    assert codes == {"OK": len(ended)}, figures


@contextmanager
def looping(call: Callable[[], Outcome], count: int) -> Iterator[Counter[str]]:
    """Makes calls on this many threads during the block; gives how they ended."""
    stopping, ended = threading.Event(), Counter[str]()

    def loop() -> None:
        while not stopping.is_set():
            ended[call().code.name] += 1

    with ThreadPoolExecutor(count) as threads:
        running = [threads.submit(loop) for _ in range(count)]
        try:
            yield ended
        finally:
            stopping.set()
    for each in running:
        each.result()


def test_slow_listings_hold_up_neither_reads_by_id_nor_the_listings_of_others(
    gateway: GatewayProgram, other: ProvenanceStorageStub, database: str
) -> None:
    with grpc.insecure_channel(gateway.address, NARROW) as channel:
        slow = [ProvenanceStorageStub(channel).RelationGetAll(LARGE) for _ in range(16)]
        eventually(lambda: transaction_count(database, "stream") >= 8, "they have all turns that they may have", 30)
        with connected(gateway.address) as (_, same_host):
            check_answered(same_host, get_by_id, find_first, write_one)
        check_answered(other, get_by_id, find_first, list_occurrences)
        for call in slow:
            call.cancel()


def test_listings_of_a_hot_content_hold_up_neither_reads_by_id_nor_the_listings_of_others(
    gateway: GatewayProgram, other: ProvenanceStorageStub
) -> None:
    with grpc.insecure_channel(gateway.address, OF_ITS_OWN) as channel:
        stub = ProvenanceStorageStub(channel)
        request = pb2.ContentFindAllRequest(id=HOT, limit=10)
        with looping(lambda: outcome_of(stub.ContentFindAll(request, timeout=30)), 24) as ended:
            eventually(lambda: ended.total() > 0, "they have begun", 60)
            with connected(gateway.address) as (_, same_host):
                check_answered(same_host, get_by_id)
            check_answered(other, get_by_id, find_first, list_occurrences)


def test_first_occurrences_of_a_hot_content_hold_one_thread(
    gateway: GatewayProgram, other: ProvenanceStorageStub, database: str
) -> None:
    with grpc.insecure_channel(gateway.address, OF_ITS_OWN) as channel:
        stub = ProvenanceStorageStub(channel)
        with looping(lambda: find_first(stub, HOT, 90.0), 16) as ended:
            eventually(lambda: ended.total() > 0, "they have begun", 60)
            running = [transaction_count(database, "read") for _ in range(20)]
            logger.info("queries at once: %s", running)
            # The health service makes one more.
            assert max(running) <= 2, f"queries at once: {running}"
            with connected(gateway.address) as (_, same_host):
                check_answered(same_host, find_first)
            check_answered(other, find_first, get_by_id)
            # The calls for the hot content are answered too, and soon.
            eventually(lambda: ended["OK"] >= 32, "each was answered", 120)
        assert set(ended) == {"OK"}


async def idle_writes(address: str, count: int, meanwhile: Callable[[], None]) -> Counter[tuple[str, str]]:
    """Opens writes that send nothing, on connections of 100 each, and returns how they ended."""
    channels = [grpc.aio.insecure_channel(address, options=OF_ITS_OWN) for _ in range(count // 100)]
    calls = [ProvenanceStorageStub(channels[number % len(channels)]).ContentAdd() for number in range(count)]
    reading = [asyncio.create_task(call.read()) for call in calls]
    await asyncio.to_thread(meanwhile)
    ended = await asyncio.gather(*reading, return_exceptions=True)
    for channel in channels:
        await channel.close()
    return Counter(
        (error.code().name, error.details() or "") if isinstance(error, grpc.aio.AioRpcError) else ("", str(error))
        for error in ended
    )


def test_writes_that_send_nothing_hold_up_nobody_and_end(gateway: GatewayProgram, other: ProvenanceStorageStub) -> None:
    def are_running() -> bool:
        name = "provgate_gateway_calls_in_flight"
        return value(gateway.metrics_address, name, method="content_add") == 751

    def meanwhile() -> None:
        # The calls that this client makes from the same host count too: none before all of the thousand have come.
        eventually(are_running, "they and the write of the other client run", FIRST_WAIT_S)
        with connected(gateway.address) as (_, same_host):
            check_exhausted(write_one(same_host), "TOO_MANY_CALLS")
            check_answered(same_host, find_first, get_by_id)
        check_answered(other, find_first, get_by_id, write_one)
        assert opened.end().ok

    opened = OpenWrite(other)
    opened.send(contents(1))
    opened.wait_for(lambda progress: progress.acked_count == 1)
    ended = asyncio.run(idle_writes(gateway.address, 1000, meanwhile))
    logger.info("%s", ended)
    # One caller has three quarters of the 1,000 places, and of the memory for messages: 38 calls are read at once.
    silent, waiting = "the write sent no message in time", "too many writes wait"
    refused = "the limit of concurrent writes is reached, or this caller's share of it"
    assert ended.keys() == {
        ("DEADLINE_EXCEEDED", silent),
        ("RESOURCE_EXHAUSTED", waiting),
        ("RESOURCE_EXHAUSTED", refused),
    }
    assert ended["RESOURCE_EXHAUSTED", refused] == 250
    assert ended["DEADLINE_EXCEEDED", silent] >= 38


def test_a_write_that_sends_nothing_is_told_why_it_ends(strict_gateway: GatewayProgram) -> None:
    with connected(strict_gateway.address) as (_, stub):
        outcome = progress_of(outcome_of(OpenWrite(stub, timeout_s=None).call))
    assert (outcome.code, outcome.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "NO_PROGRESS")
    assert outcome.message == "the write sent no message in time"
    assert SHORT_FIRST_WAIT_S - 0.5 < outcome.elapsed_s < SHORT_FIRST_WAIT_S + ANSWER_S


def test_a_client_that_always_reads_too_slowly_loses_its_turn(strict_gateway: GatewayProgram) -> None:
    with (
        connected(strict_gateway.address) as (_, stub),
        grpc.insecure_channel(strict_gateway.address, NARROW) as channel,
        ExitStack() as stack,
    ):
        call = ProvenanceStorageStub(channel).RelationGetAll(LARGE)
        stack.callback(call.cancel)
        started_at = time.monotonic()
        # Each answer is read well within the idle time, but it is of some 50 KB, and earns no more than 50 ms.
        with pytest.raises(grpc.RpcError) as raised:  # noqa: PT012
            while time.monotonic() < started_at + 30:
                next(call)
                time.sleep(0.5)
            pytest.fail(f"it still has its turn after {time.monotonic() - started_at:.0f} s")
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert list_occurrences(stub).ok
        # A client that reads as fast as it can is not ended, although it takes longer than the idle time allows.
        assert sum(len(response.relations) for response in stub.RelationGetAll(LARGE)) == OCCURRENCES


async def plain_calls(address: str, count: int) -> Counter[str]:
    """Makes this many ContentFindFirst at once, of different contents, and returns how they ended."""
    async with grpc.aio.insecure_channel(address, options=OF_ITS_OWN) as channel:
        stub = ProvenanceStorageStub(channel)

        async def call(number: int) -> str:
            try:
                request = pb2.ContentFindFirstRequest(id=number.to_bytes(20, "big"))
                await stub.ContentFindFirst(request, timeout=60)
            except grpc.aio.AioRpcError as error:
                return error.code().name + ("" if has_details(error) else f" without a reason: {error.details()}")
            return "OK"

        return Counter(await asyncio.gather(*(call(number) for number in range(count))))


def has_details(error: grpc.aio.AioRpcError) -> bool:
    return any(key == "grpc-status-details-bin" for key, _ in error.trailing_metadata() or ())


def test_thousands_of_plain_calls_at_once_end_well_or_with_a_reason(gateway: GatewayProgram) -> None:
    ended = asyncio.run(plain_calls(gateway.address, 3000))
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
            for _ in range(3):
                check_answered(same_host, find_first)
                check_answered(other, find_first)
        ended = asyncio.run(plain_calls(gateway.address, 500))
        logger.info("%s; %d reset", ended, resetter.count)
        assert set(ended) <= {"OK", "RESOURCE_EXHAUSTED"}, ended


def test_reads_that_wait_for_their_turn_hold_their_requests_as_they_came_and_no_more(
    gateway: GatewayProgram, database: str
) -> None:
    request = pb2.ContentGetRequest(ids=[number.to_bytes(20, "big") for number in range(IDS)])
    ended = Counter[str]()
    calls: list[Any] = []
    with locked(database, "content"), connected(gateway.address) as (_, stub):
        before = peak = Footprint.of(gateway.pid)

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
