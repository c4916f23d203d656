"""The PostgreSQL storage keeps the contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from provgate_storage.interface import ProvenanceStorageInterface
from provgate_storage.postgresql import ProvenanceStoragePostgreSql
from tests.contract.contract import ProvenanceStorageContract


class TestPostgreSql(ProvenanceStorageContract):
    @pytest.fixture
    def storage(self, postgres_dsn: str) -> Iterator[ProvenanceStorageInterface]:
        with ProvenanceStoragePostgreSql(db=postgres_dsn) as storage:
            storage.setup({})
            yield storage
