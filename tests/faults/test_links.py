"""The links of gateway and workers to broker and database, broken one at a time while writes and reads go on."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

import pytest

from provgate_stack.processes.directory import StackDirectory
from provgate_stack.servers.postgresql import PostgreSqlCluster, postgresql_storage
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.stack import StorageConfig
from tests.faults.database_trouble import FIND_FIRST, RECOVERED_S
from tests.faults.linked import (
    STORAGE_TIMEOUT_S,
    LinkedStack,
    check_black_hole_is_noticed,
    check_broken_link_is_made_again,
    check_link_that_breaks_after_some_bytes_is_made_again,
    over,
    start_linked,
    under_load,
)
from tests.support.gateway_calls import outcome_of_unary
from tests.support.link import Link
from tests.support.loss_checker import Checker

pytestmark = pytest.mark.faults

TIMEOUTS: Final = {
    "connect_timeout_s": 2,
    "tcp_timeout_s": 4,
    "lock_timeout_s": STORAGE_TIMEOUT_S,
    "write_timeout_s": STORAGE_TIMEOUT_S,
    "read_timeout_s": STORAGE_TIMEOUT_S,
    "stream_timeout_s": STORAGE_TIMEOUT_S,
}


LINKS: Final = ["gateway to broker", "workers to broker", "gateway to database", "workers to database"]


@pytest.fixture(scope="module")
def module_linked(
    rabbitmq_node: RabbitMqNode, postgres_cluster: PostgreSqlCluster, stack_directory: StackDirectory
) -> Iterator[LinkedStack]:
    name = f"links_{secrets.token_hex(4)}"
    rabbitmq_node.add_vhost(name)
    broker_url, database_dsn = rabbitmq_node.url(name), postgres_cluster.create_database(name)
    with ExitStack() as open_links:
        links = {
            link: open_links.enter_context(
                Link("127.0.0.1", rabbitmq_node.port if link.endswith("broker") else postgres_cluster.port)
            )
            for link in LINKS
        }

        def storage(program: str) -> StorageConfig:
            return postgresql_storage(over(links[f"{program} to database"], database_dsn), **TIMEOUTS)

        urls = (over(links["gateway to broker"], broker_url), over(links["workers to broker"], broker_url))
        stack = start_linked(urls, storage, stack_directory, name)
        yield LinkedStack(stack, links, postgresql_storage(database_dsn), Checker())
        stack.kill()
    rabbitmq_node.delete_vhost(name)
    postgres_cluster.drop_database(name)


@pytest.fixture
def linked(module_linked: LinkedStack) -> Iterator[LinkedStack]:
    yield module_linked
    module_linked.mend()


@pytest.fixture(params=LINKS)
def name(request: pytest.FixtureRequest) -> str:
    link: str = request.param
    return link


def test_a_black_hole_is_noticed(linked: LinkedStack, name: str) -> None:
    check_black_hole_is_noticed(linked, name)


def test_a_link_that_is_reset_is_made_again(linked: LinkedStack, name: str) -> None:
    check_broken_link_is_made_again(linked, name, Link.reset)


def test_a_link_that_is_half_closed_is_made_again(linked: LinkedStack, name: str) -> None:
    check_broken_link_is_made_again(linked, name, Link.half_close)


def test_a_link_that_breaks_after_some_bytes_is_made_again(linked: LinkedStack, name: str) -> None:
    check_link_that_breaks_after_some_bytes_is_made_again(linked, name)


def test_a_slow_link_is_used_as_it_is(linked: LinkedStack, name: str) -> None:
    with under_load(linked) as (load, stub):
        linked.links[name].delay_s = 0.1
        load.wait_for_acks(RECOVERED_S)
        # Of one row: all that the module has written comes in many pieces.
        for _ in range(4):
            assert outcome_of_unary(lambda: stub.ContentFindFirst(FIND_FIRST, timeout=20)).ok
        assert not linked.noticed(name)
