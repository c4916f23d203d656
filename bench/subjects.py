"""What is compared: the stack, and what stands beside it in the same servers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from psycopg2.extensions import make_dsn

from bench.database import PostgreSqlDatabase
from bench.limit.pipeline import Pipeline
from bench.writers import PipelineWriter, StorageWriter, Writer
from provgate_stack.layout import DIRECTORY_VARIABLE, ROLE_VARIABLE
from provgate_stack.postgresql import create_database
from provgate_stack.programs import ReadyFileProgram
from provgate_stack.stack import Stack

_CLONE: Final = Path(__file__).resolve().parent.parent

GATEWAY: Final = "gateway"
DIRECT: Final = "direct"
LIMIT: Final = "limit"
HABITS: Final = "habits"


@dataclass(frozen=True)
class Subject:
    """One of those that are compared.

    Attributes:
        name: of them.
        writers: what clients write to; the first client to the first, and so on, round and round.
        database: where the rows end.
        all_rows: whether all rows are checked after a run; their number is otherwise.
    """

    name: str
    writers: Sequence[Writer]
    database: PostgreSqlDatabase
    all_rows: bool = False


@contextmanager
def subjects_on(stack: Stack) -> Iterator[dict[str, Subject]]:
    """Sets up what a stack is compared with, in its servers, each in a database of its own."""
    rabbitmq = yaml.safe_load(stack.config.read_text(encoding="utf-8"))["provenance"]["rabbitmq"]
    with ExitStack() as opened:
        own = _database(opened, rabbitmq["storage_config"]["db"])
        own.keep_vacuum_off()
        direct = _database_like(opened, own, DIRECT)
        subjects = [
            Subject(GATEWAY, [StorageWriter({"cls": "grpc", "url": stack.address})], own),
            Subject(DIRECT, [StorageWriter({**direct.storage_config, "write_connections": 1})], direct),
        ]
        for name, package_entries, copies in ((LIMIT, 10_000, True), (HABITS, 100, False)):
            database = _database_like(opened, own, name)
            pipeline = Pipeline(name, rabbitmq["url"], database.dsn, package_entries, copies, processes=2)
            opened.enter_context(_consumers(pipeline, stack.path))
            subjects.append(Subject(name, [PipelineWriter(pipeline)], database, all_rows=True))
        yield {subject.name: subject for subject in subjects}


def _database(opened: ExitStack, dsn: str) -> PostgreSqlDatabase:
    database = PostgreSqlDatabase(dsn)
    opened.callback(database.close)
    return database


def _database_like(opened: ExitStack, own: PostgreSqlDatabase, name: str) -> PostgreSqlDatabase:
    create_database(own.dsn, f"bench_{name}")
    database = _database(opened, make_dsn(own.dsn, dbname=f"bench_{name}"))
    database.set_up_like(own)
    return database


@contextmanager
def _consumers(pipeline: Pipeline, directory: Path) -> Iterator[None]:
    file = pipeline.save(directory)
    environment = os.environ | _marks(directory) | {"PYTHONPATH": str(_CLONE)}
    programs: list[ReadyFileProgram] = []
    try:
        for number in range(pipeline.processes):
            command = [sys.executable, "-m", "bench.limit.consumer", str(file), str(number)]
            program = ReadyFileProgram(command, environment, directory / f"{pipeline.name}-{number}.log")
            program.start()
            programs.append(program)
        for program in programs:
            program.wait_ready()
        yield
    finally:
        for program in programs:
            program.kill()


def _marks(directory: Path) -> dict[str, Any]:
    """Returns the variables by which CPU accounting finds a process, as one of the workers."""
    return {DIRECTORY_VARIABLE: str(directory), ROLE_VARIABLE: "workers"}
