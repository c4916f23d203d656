"""The links of gateway and workers to MongoDB, broken one at a time while writes and reads go on."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

import pytest

from provgate_stack.processes.directory import StackDirectory
from provgate_stack.servers.mongodb import MongoDbServer, mongodb_storage
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.stack import StorageConfig
from tests.faults.linked import (
    STORAGE_TIMEOUT_S,
    LinkedStack,
    check_black_hole_is_noticed,
    check_broken_link_is_made_again,
    check_link_that_breaks_after_some_bytes_is_made_again,
    over,
    start_linked,
)
from tests.support.link import Link
from tests.support.loss_checker import Checker

pytestmark = pytest.mark.faults

TIMEOUTS: Final = {
    "connect_timeout_s": 2,
    "write_timeout_s": STORAGE_TIMEOUT_S,
    "read_timeout_s": STORAGE_TIMEOUT_S,
    "stream_timeout_s": STORAGE_TIMEOUT_S,
}

LINKS: Final = ["gateway to database", "workers to database"]


@pytest.fixture(scope="module")
def module_linked(
    rabbitmq_node: RabbitMqNode, mongodb_server: MongoDbServer, stack_directory: StackDirectory
) -> Iterator[LinkedStack]:
    name = f"mongodb_links_{secrets.token_hex(4)}"
    rabbitmq_node.add_vhost(name)
    url = rabbitmq_node.url(name)
    with ExitStack() as open_links:
        links = {link: open_links.enter_context(Link("127.0.0.1", mongodb_server.port)) for link in LINKS}

        def storage(program: str) -> StorageConfig:
            # Else a client leaves the link for the address that the server tells it.
            direct = mongodb_server.url(f"{name}?directConnection=true")
            return mongodb_storage(over(links[f"{program} to database"], direct), **TIMEOUTS)

        stack = start_linked((url, url), storage, stack_directory, name)
        yield LinkedStack(stack, links, mongodb_server.storage_config(name), Checker())
        stack.kill()
    rabbitmq_node.delete_vhost(name)


@pytest.fixture
def linked(module_linked: LinkedStack) -> Iterator[LinkedStack]:
    yield module_linked
    module_linked.mend()


@pytest.fixture(params=LINKS)
def name(request: pytest.FixtureRequest) -> str:
    link: str = request.param
    return link


def test_a_black_hole_to_mongodb_is_noticed(linked: LinkedStack, name: str) -> None:
    check_black_hole_is_noticed(linked, name)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_link_to_mongodb_that_is_reset_is_made_again(linked: LinkedStack, name: str) -> None:
    check_broken_link_is_made_again(linked, name, Link.reset)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_link_to_mongodb_that_is_half_closed_is_made_again(linked: LinkedStack, name: str) -> None:
    check_broken_link_is_made_again(linked, name, Link.half_close)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_link_to_mongodb_that_breaks_after_some_bytes_is_made_again(linked: LinkedStack, name: str) -> None:
    check_link_that_breaks_after_some_bytes_is_made_again(linked, name)
