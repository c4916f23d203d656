"""The MongoDB storage keeps the contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from provgate_storage.interface import ProvenanceStorageInterface
from provgate_storage.mongodb import ProvenanceStorageMongoDb
from tests.contract.contract import ProvenanceStorageContract


class TestMongoDb(ProvenanceStorageContract):
    # SecantusDB takes a minute for what PostgreSQL does in a second.
    large_count = 5_000

    @pytest.fixture
    def storage(self, mongodb_url: str) -> Iterator[ProvenanceStorageInterface]:
        with ProvenanceStorageMongoDb(db=mongodb_url) as storage:
            storage.setup({"content": 16})
            yield storage
