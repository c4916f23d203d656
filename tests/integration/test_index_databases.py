"""A history, indexed through the whole stack on each database, has the same index."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from provgate_client.git import index_repository
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.servers.mongodb import mongodb_storage
from provgate_stack.servers.postgresql import postgresql_storage
from provgate_stack.stack import Stack
from provgate_storage.model import EntityType
from tests.integration.histories import HISTORIES, make_repository
from tests.support.examples import state_of


def test_every_answer_is_the_same(
    amqp_url: str, postgres_dsn: str, mongodb_url: str, stack_directory: StackDirectory, tmp_path: Path
) -> None:
    repository = make_repository(HISTORIES[-1], tmp_path)
    databases = [postgresql_storage(postgres_dsn), mongodb_storage(mongodb_url)]
    expected, found = (
        answers(Stack(amqp_url, database, stack_directory, name=f"index-{database['cls']}"), repository)
        for database in databases
    )
    # One kind of answer after the other: a difference of everything is not one to look at.
    for kind, answer in expected.items():
        assert found[kind] == answer, kind


def answers(stack: Stack, repository: Path) -> Mapping[str, Any]:
    """Returns what a stack tells after it indexed a repository: every row, date, set and first occurrence.

    All occurrences are told of one content in ten: SecantusDB takes two tenths of a second for each.
    """
    with stack:
        stack.start()
        with ProvenanceStorageGrpc(url=stack.address) as storage:
            assert index_repository(repository, storage, "https://example.org/").is_complete
            contents = sorted(storage.entity_get_all(EntityType.CONTENT))
            assert len(contents) > 400
            return state_of(storage, occurrences_of=contents[::10])
