"""Stacks on a virtual host and a database of their own, with real or scripted workers."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from provgate_stack.processes.directory import StackDirectory
from provgate_stack.servers.mongodb import mongodb_storage
from provgate_stack.servers.postgresql import postgresql_storage
from provgate_stack.stack import Stack, StorageConfig
from tests.support.scripted_workers import ScriptedWorkers, set_up

# A topology of 19 queues is set up and removed faster than one of 160.
FEW_RANGES = {"content": 4, "directory": 1, "location": 1, "origin": 1, "revision": 1}


@pytest.fixture
def bare_stack(amqp_url: str, postgres_dsn: str, stack_directory: StackDirectory) -> Iterator[Stack]:
    """A stack without running programs, for tests that choose settings or start programs one by one."""
    yield from _stack(amqp_url, postgresql_storage(postgres_dsn), stack_directory)


@pytest.fixture
def small_stack(amqp_url: str, postgres_dsn: str, stack_directory: StackDirectory) -> Iterator[Stack]:
    """As `bare_stack`, with few queues."""
    yield from _stack(amqp_url, postgresql_storage(postgres_dsn), stack_directory, FEW_RANGES)


@pytest.fixture
def stack(bare_stack: Stack) -> Stack:
    """A stack whose worker program and gateway run, for one test."""
    bare_stack.start()
    return bare_stack


@pytest.fixture(scope="module")
def shared_stack(module_amqp_url: str, module_postgres_dsn: str, stack_directory: StackDirectory) -> Iterator[Stack]:
    """A stack whose worker program and gateway run, for all tests of a module: they leave it running."""
    for stack in _stack(module_amqp_url, postgresql_storage(module_postgres_dsn), stack_directory):
        stack.start()
        yield stack


@pytest.fixture(scope="module")
def shared_mongodb_stack(
    module_amqp_url: str, module_mongodb_url: str, stack_directory: StackDirectory
) -> Iterator[Stack]:
    """As `shared_stack`, on MongoDB. A module uses only one of them, because both use the same virtual host."""
    for stack in _stack(module_amqp_url, mongodb_storage(module_mongodb_url), stack_directory):
        stack.start()
        yield stack


def _stack(
    amqp_url: str, storage_config: StorageConfig, directory: StackDirectory, ranges: Mapping[str, int] | None = None
) -> Iterator[Stack]:
    overrides = {"rabbitmq": {"ranges": dict(ranges)}} if ranges else None
    stack = Stack(amqp_url, storage_config, directory, overrides, name=f"stack-{secrets.token_hex(4)}")
    yield stack
    stack.kill()


MakeStack = Callable[..., Stack]


@pytest.fixture(scope="module")
def workerless_stack(
    module_amqp_url: str, module_postgres_dsn: str, stack_directory: StackDirectory
) -> Iterator[Stack]:
    """A stack with topology and schema, without running programs: a module starts the gateways that it needs."""
    storage_config = postgresql_storage(module_postgres_dsn)
    set_up(module_amqp_url, storage_config)
    stack = Stack(module_amqp_url, storage_config, stack_directory, name=f"gateway-{secrets.token_hex(4)}")
    yield stack
    stack.kill()


@pytest.fixture(scope="module")
def module_scripted_workers(workerless_stack: Stack, module_amqp_url: str) -> Iterator[ScriptedWorkers]:
    """Scripted workers behind `workerless_stack`. They leave the queues of locations alone."""
    with ScriptedWorkers(module_amqp_url, leaves=lambda queue: queue.startswith("location_add")) as workers:
        yield workers


@pytest.fixture
def scripted_workers(module_scripted_workers: ScriptedWorkers) -> ScriptedWorkers:
    """The module's scripted workers, which answer in full and have seen nothing yet."""
    module_scripted_workers.reset()
    return module_scripted_workers


@pytest.fixture
def make_stack(
    workerless_stack: Stack, module_amqp_url: str, module_postgres_dsn: str, stack_directory: StackDirectory
) -> Iterator[MakeStack]:
    """Makes a stack on the module's servers with settings of its own."""
    made: list[Stack] = []
    module_config = postgresql_storage(module_postgres_dsn)

    def make(storage_config: StorageConfig = module_config, amqp_url: str = module_amqp_url, **overrides: Any) -> Stack:
        name = f"start-{secrets.token_hex(4)}"
        made.append(Stack(amqp_url, storage_config, stack_directory, overrides, name=name))
        return made[-1]

    yield make
    for stack in made:
        stack.kill()


def add_large_relation(dsn: str) -> None:
    """Adds one relation of 32 MB to a database."""
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO content_in_directory SELECT substr(sha256(n::text::bytea), 1, 20), "
            "substr(sha256(n::text::bytea), 1, 20), (repeat('x', 4000) || n)::bytea FROM generate_series(1, 8000) n"
        )
