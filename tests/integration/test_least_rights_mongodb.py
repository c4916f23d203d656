"""A MongoDB database whose users have the roles of docs/operations.md and no others."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from provgate_broker.topology.policy import RangePolicy
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.servers.mongodb import MongoDbServer
from provgate_storage import RelationData, RelationType
from provgate_storage.database.local import LocalStorage
from provgate_storage.errors import StorageForbiddenError
from provgate_storage.registry import local_storage
from tests.integration.least_rights import GATEWAY, SETUP, WORKERS, make_mongodb_users
from tests.support.entries import entry_id

RANGE_COUNTS = {exchange.value: count for exchange, count in RangePolicy().counts.items()}
CONTENT, REVISION = b"\xff" * 20, b"\x01" * 20


@pytest.fixture(scope="module")
def urls(stack_directory: StackDirectory) -> Iterator[dict[str, str]]:
    server = MongoDbServer(stack_directory, "users-mongodb")
    server.start()
    urls = make_mongodb_users(server, f"least_{secrets.token_hex(4)}")
    with opened(urls[SETUP]) as storage:
        storage.setup(RANGE_COUNTS)
    yield urls
    server.kill()


def opened(url: str) -> LocalStorage:
    return local_storage({"cls": "mongodb", "db": url}, "test")


def test_workers_write_and_the_gateway_reads(urls: dict[str, str]) -> None:
    with opened(urls[WORKERS]) as writer, opened(urls[GATEWAY]) as reader:
        for storage in (writer, reader):
            storage.check(RANGE_COUNTS)
        for _ in range(2):
            assert writer.content_add([entry_id(number) for number in range(2000)])
            assert writer.relation_add(RelationType.CNT_EARLY_IN_REV, {CONTENT: {RelationData(REVISION, b"a")}})
        assert len(reader.entity_get_all(RelationType.CNT_EARLY_IN_REV.source)) > 2000
        assert list(reader.content_find_all(CONTENT)) == []


def test_the_gateway_s_user_cannot_write(urls: dict[str, str]) -> None:
    with opened(urls[GATEWAY]) as storage:
        with pytest.raises(StorageForbiddenError, match="not authorized"):
            storage.content_add([CONTENT])
        with pytest.raises(StorageForbiddenError, match="not authorized"):
            storage.setup(RANGE_COUNTS)


@pytest.mark.parametrize(
    "command",
    [
        {"delete": "content", "deletes": [{"q": {}, "limit": 0}]},
        {"drop": "content"},
        {"create": "mine"},
        {"createIndexes": "content", "indexes": [{"key": {"date": 1}, "name": "mine"}]},
        {"collMod": "content", "validator": {}},
        {"dropDatabase": 1},
    ],
    ids=lambda command: next(iter(command)),
)
def test_the_workers_user_writes_rows_and_no_more(urls: dict[str, str], command: dict[str, object]) -> None:
    with MongoClient[dict[str, object]](urls[WORKERS]) as client:
        with pytest.raises(OperationFailure, match="not authorized"):
            client.get_default_database().command(command)
        with pytest.raises(OperationFailure, match="not authorized"):
            client["another"].command({"insert": "content", "documents": [{}]})
