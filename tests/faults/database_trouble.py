"""A database in trouble while writes go on: what is said of it meanwhile, and that all goes on afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import grpc
import psutil

from provgate.v1 import model_pb2
from provgate.v1 import provenance_storage_pb2 as pb2
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_stack.processes.process import ChildProgram
from provgate_stack.stack import Stack, StorageConfig
from tests.faults.load import Load, check_all_acked
from tests.support.entries import entry_id
from tests.support.gateway_calls import Outcome, connected, health, outcome_of, outcome_of_unary, wait_serving
from tests.support.loss_checker import Checker
from tests.support.polling import eventually

NOTICED_S: Final = 30.0
RECOVERED_S: Final = 60.0

# What programs may use while they wait: a loop that spins takes a whole core, and says so without end.
IDLE_CORES: Final = 0.3
IDLE_LINES: Final = 50

FIND_FIRST: Final = pb2.ContentFindFirstRequest(id=entry_id(1))
CONTENTS: Final = pb2.EntityGetAllRequest(entity=model_pb2.ENTITY_TYPE_CONTENT)


@contextmanager
def under_load(stack: Stack, checker: Checker, storage_config: StorageConfig) -> Iterator[ProvenanceStorageStub]:
    """Writes before, during and after what the test does; in the end every write is acked, and what is acked stored."""
    with Load(stack.address, checker) as load, connected(stack.address) as (channel, stub):
        load.wait_for_acks()
        yield stub
        load.wait_for_acks(RECOVERED_S)
        wait_serving(channel)
        assert all(outcome.ok for outcome in reads(stub))
        check_all_acked(load, checker, storage_config)


def reads(stub: ProvenanceStorageStub) -> list[Outcome]:
    return [
        outcome_of_unary(lambda: stub.ContentFindFirst(FIND_FIRST, timeout=10)),
        outcome_of(stub.EntityGetAll(CONTENTS, timeout=10)),
    ]


def assert_unavailable(stack: Stack, stub: ProvenanceStorageStub) -> None:
    """Health says that the storage is away, and reads that they may be tried again."""
    with grpc.insecure_channel(stack.address) as channel:
        eventually(lambda: health(channel, "provgate.storage") == "NOT_SERVING", "health knows", NOTICED_S)
        assert health(channel) == "NOT_SERVING"
        assert health(channel, "provgate.broker") == "SERVING"
    for outcome in reads(stub):
        assert (outcome.code.name, outcome.reason) == ("UNAVAILABLE", "STORAGE_UNAVAILABLE")
        assert "RetryInfo" in outcome.details


def assert_idle(stack: Stack, duration_s: float) -> None:
    """The programs do next to nothing, and say little, for so long."""
    programs: list[ChildProgram] = [*stack.workers, *stack.gateways]
    before = [(cpu_s(program), line_count(program)) for program in programs]
    time.sleep(duration_s)
    for program, (cpu_before_s, lines_before) in zip(programs, before, strict=True):
        assert cpu_s(program) - cpu_before_s < IDLE_CORES * duration_s, program.command
        assert line_count(program) - lines_before < IDLE_LINES, program.command


def cpu_s(program: ChildProgram) -> float:
    process = psutil.Process(program.pid)
    return sum(sum(each.cpu_times()[:2]) for each in (process, *process.children(recursive=True)))


def line_count(program: ChildProgram) -> int:
    return len(program.log_path.read_text().splitlines())


def wait_for_trouble(stack: Stack, text: str) -> None:
    log = stack.workers[0].log_path
    eventually(lambda: "the storage is in trouble" in log.read_text() and text in log.read_text(), text, NOTICED_S)
