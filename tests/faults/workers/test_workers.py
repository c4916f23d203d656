"""Worker programs are killed, suspended and stopped while they write; others stand by and take over."""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from provgate_broker.topology.policy import RangePolicy
from provgate_client.errors import CallTimeoutError
from provgate_stack.processes.process import LOOPBACK
from provgate_stack.processes.programs import WorkerProgram
from provgate_stack.servers.postgresql import postgresql_storage
from provgate_storage import RevisionData
from tests.faults.load import WatchedWrite
from tests.faults.postgresql import commits_held, execute, query, rows_held
from tests.faults.system import RECOVERED_S, System, over
from tests.support.broker import active_programs
from tests.support.fix_stack import FEW_RANGES
from tests.support.link import Link, Mode
from tests.support.polling import eventually

pytestmark = pytest.mark.faults

PACKAGE_SIZE: Final = 100

# As many packages as a worker program takes in hand at once.
ENTRY_COUNT: Final = 2_000

# Long enough for the second program to be there before the first takes what is left.
STANDBY_DELAY_S: Final = 10.0

PREFERRED: Final = {"low": ["content.0-1"], "high": ["content.2-3", "directory", "location", "origin", "revision"]}
QUEUES: Final = {queue.name for queue in RangePolicy.of(FEW_RANGES).queues()}


def dated(count: int, year: int = 2020) -> dict[bytes, datetime]:
    """Returns contents of all ranges."""
    date = datetime(year, 1, 2, tzinfo=UTC)
    return {hashlib.sha1(b"%d" % number).digest(): date for number in range(count)}


@dataclass(frozen=True)
class Pair:
    """A worker program behind a link to the broker, another one that stands by, and a gateway.

    Attributes:
        system: with these programs.
        link: of the first worker program; its mode is for the connections that replies go out on alone.
    """

    system: System
    link: Link

    def write(self) -> WatchedWrite:
        """Returns the write during which every test kills the writer."""
        return self.system.watched_write("content_add", dated(ENTRY_COUNT))

    def kill_writer(self) -> None:
        """Kills the first worker program. What its link holds is lost with it."""
        self.system.workers.kill()
        self.link.reset()
        self.link.mode = Mode.PASS

    def check_packages_unacked(self) -> None:
        """Checks that no delivery is acked to the broker."""
        assert self.system.unacked_count() == self.system.message_count() > 0

    def check_taken_over(self, write: WatchedWrite) -> None:
        """Waits until the program that stands by has taken over, and compares what is held."""
        write.result()
        eventually(lambda: self.system.message_count() == 0, "every package is delivered again", RECOVERED_S)
        self.system.check()
        assert self.system.stored_count(dated(ENTRY_COUNT)) == ENTRY_COUNT
        self.system.check_nothing_set_aside()


@pytest.fixture
def pair(system: System) -> Iterator[Pair]:
    with Link(LOOPBACK, system.node.port) as link:
        # Part of the name of the connections for replies.
        link.only = b" replies"
        # A write that is held is not given up in the meantime.
        storage_config = postgresql_storage(system.dsn, lock_timeout_s=60)
        system.stack.start_workers(url=over(link, system.url), storage_config=storage_config)
        second = system.stack.start_workers(wait=False, storage_config=storage_config)
        system.stack.start_gateway(
            listen=system.stack.address, batch_size=PACKAGE_SIZE, wait_min=RECOVERED_S, wait_per_batch=0
        )
        second.wait_ready()
        yield Pair(system, link)
        system.stack.kill()


def test_a_kill_before_commit(pair: Pair) -> None:
    with rows_held(pair.system.dsn, dated(ENTRY_COUNT)) as held, pair.write() as write:
        held.wait_waiting("INSERT")
        write.wait_all_published()
        assert write.progress.acked_count == 0
        pair.kill_writer()
        held.release()
        pair.check_taken_over(write)


def test_a_kill_during_commit(pair: Pair) -> None:
    with commits_held(pair.system.dsn) as held, pair.write() as write:
        held.wait_waiting("COMMIT")
        write.wait_all_published()
        assert write.progress.acked_count == 0
        # The database goes on with a COMMIT, whether its client is alive or not.
        pair.kill_writer()
        held.release()
        pair.check_taken_over(write)


def test_a_kill_between_commit_and_reply(pair: Pair) -> None:
    with commits_held(pair.system.dsn) as held, pair.write() as write:
        held.wait_waiting("COMMIT")
        pair.link.mode = Mode.BLACK_HOLE
        held.release()
        wait_stored(pair.system, ENTRY_COUNT)
        assert write.progress.acked_count == 0
        # An acked delivery would be lost to the sender with its reply.
        pair.check_packages_unacked()
        pair.kill_writer()
        pair.check_taken_over(write)


def test_a_kill_between_reply_and_delivery_ack(pair: Pair) -> None:
    with commits_held(pair.system.dsn) as held, pair.write() as write:
        held.wait_waiting("COMMIT")
        pair.link.mode = Mode.NO_ANSWER
        held.release()
        write.result()
        pair.check_packages_unacked()
        pair.kill_writer()
        # The second replies to packages that are acked count for nothing.
        pair.check_taken_over(write)
    assert "Traceback" not in pair.system.gateway.log_path.read_text()


def wait_stored(system: System, count: int) -> None:
    eventually(lambda: system.stored_count(dated(count)) == count, "all is stored", RECOVERED_S)


def test_a_kill_during_a_large_write(system: System) -> None:
    system.start()
    system.stack.start_workers()
    with system.watched_write("content_add", dated(100_000)) as write:
        write.wait_first_ack()
        system.workers.kill()
        assert write.progress.acked_count < 100_000
        write.result()
    system.check()
    system.check_nothing_set_aside()


@pytest.mark.parametrize("request_", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_one_that_is_asked_to_stop_leaves_a_flood_to_the_others(system: System, request_: signal.Signals) -> None:
    system.start()
    system.stack.start_workers()
    with system.load() as load:
        load.wait_for_acks()
        with system.watched_write("content_add", dated(100_000)) as flood:
            flood.wait_first_ack()
            assert system.workers.terminate(request=request_) == 0
            assert not flood.done
            load.wait_for_acks()
            flood.result()
        system.check_all_acked(load)
    system.check_nothing_set_aside()


def test_a_write_waits_for_workers_that_come_back(system: System) -> None:
    system.start()
    system.workers.stop()
    with system.watched_write("content_add", dated(20_000)) as write:
        write.wait_all_published()
        system.workers.kill()
        # The packages that were in hand are back.
        eventually(lambda: system.unacked_count() == 0, "the worker is known to be gone", RECOVERED_S)
        assert not write.done
        system.stack.start_workers()
        write.result()
    system.check()


def test_a_write_waits_for_workers_until_its_limits(system: System) -> None:
    system.start({"wait_min": 2, "wait_per_batch": 0})
    contents = dated(5_000)
    system.workers.kill()
    with system.watched_write("content_add", contents) as write:
        error = write.error()
    assert isinstance(error, CallTimeoutError)
    assert error.status.counts is not None
    assert (error.status.counts.published_count, error.status.counts.acked_count) == (len(contents), 0)
    system.workers.start()
    # It was not acked, and it is stored all the same: the packages were safe.
    wait_stored(system, len(contents))
    with system.watched_write("content_add", contents) as write:
        write.result()
    system.check()


@pytest.mark.parametrize(
    ("heartbeat_s", "suspended_s"), [(1, 0), pytest.param(10, 60, marks=[pytest.mark.long, pytest.mark.timeout(400)])]
)
def test_one_that_is_suspended_is_replaced_and_what_it_writes_late_does_no_harm(
    system: System, heartbeat_s: int, suspended_s: float
) -> None:
    def writers() -> list[str]:
        """Returns the application names of the programs that wrote revisions, in their order."""
        return [name for (name,) in query(system.dsn, "SELECT name FROM writer ORDER BY number")]

    def write_of_year(year: int) -> WatchedWrite:
        """Returns a write of the same revisions for every year, with a date and an origin of that year."""
        origin = hashlib.sha1(b"%d" % year).digest()
        revisions = {id: RevisionData(date, origin) for id, date in dated(500, year).items()}
        return system.watched_write("revision_add", revisions)

    with Link(LOOPBACK, int(parse_dsn(system.dsn)["port"])) as link:
        linked_dsn = make_dsn(system.dsn, host=LOOPBACK, port=link.port, application_name="suspended")
        first = system.stack.start_workers(heartbeat=heartbeat_s, storage_config=postgresql_storage(linked_dsn))
        system.start(heartbeat=heartbeat_s)
        execute(
            system.dsn,
            """CREATE TABLE writer (number serial, name text);
            CREATE FUNCTION note_writer() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN INSERT INTO writer (name) VALUES (current_setting('application_name')); RETURN NULL; END $$;
            CREATE TRIGGER note_writer AFTER INSERT ON revision EXECUTE FUNCTION note_writer()""",
        )
        with write_of_year(2019) as write:
            write.result()
        link.mode = Mode.BLACK_HOLE
        with write_of_year(2018) as write:
            eventually(lambda: link.held_count > 0, "it writes", RECOVERED_S)
            first.stop()
            write.result()
        # The suspended program is about to write later dates than these, and other origins.
        with write_of_year(2017) as write:
            write.result()
        time.sleep(suspended_s)
        assert writers()[-1] != "suspended write"
        link.mode = Mode.PASS
        first.cont()
        eventually(lambda: writers()[-1] == "suspended write", "it writes late", RECOVERED_S)
        eventually(lambda: system.message_count() == 0, "no package is left", RECOVERED_S)
        system.check()
        with write_of_year(2016) as write:
            write.result()
        system.check()
        system.check_nothing_set_aside()
        assert first.terminate() == 0


@pytest.mark.parametrize(
    "order", [("low", "high"), pytest.param(("high", "low"), marks=pytest.mark.long)], ids="-".join
)
def test_two_share_the_ranges_by_preference_and_each_stands_in_for_the_other(
    system: System, order: tuple[str, str]
) -> None:
    def serving() -> dict[str, WorkerProgram]:
        return active_programs(system.node, system.url, system.stack.workers)

    def started(name: str, standby_delay_s: float = STANDBY_DELAY_S) -> WorkerProgram:
        return system.stack.start_workers(wait=False, preferred=PREFERRED[name], standby_delay=standby_delay_s)

    def wait_split(expected: dict[str, WorkerProgram]) -> None:
        # Election is per queue: they follow one another.
        eventually(lambda: serving() == expected, "every queue is served by the expected program", RECOVERED_S)

    programs: dict[str, WorkerProgram] = {}
    for name in order:
        program = programs[name] = started(name)
        eventually(lambda program=program: program in serving().values(), f"{name} serves", RECOVERED_S)  # type: ignore[misc]
    split = {queue: programs["low" if is_low(queue) else "high"] for queue in QUEUES}
    wait_split(split)
    system.stack.start_gateway(listen=system.stack.address)
    with system.load() as load:
        load.wait_for_acks()
        for program in programs.values():
            program.wait_ready()
        # Each is registered for everything by now, and has taken nothing from the other.
        assert serving() == split
        programs["low"].kill()
        load.wait_for_acks(RECOVERED_S)
        wait_split(dict.fromkeys(QUEUES, programs["high"]))
        added = started("low", standby_delay_s=0)
        added.wait_ready()
        assert serving() == dict.fromkeys(QUEUES, programs["high"])
        programs["high"].kill()
        load.wait_for_acks(RECOVERED_S)
        wait_split(dict.fromkeys(QUEUES, added))
        system.check_all_acked(load)


def is_low(queue: str) -> bool:
    method, relation, range_number = queue.split(".")
    return range_number in "01" and (method == "content_add" or relation.startswith("content_"))
