"""The adapter, over a gateway and workers on MongoDB, keeps the contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from provgate_client.storage import ProvenanceStorageGrpc
from provgate_stack.stack import Stack
from provgate_storage.interface import ProvenanceStorageInterface
from tests.contract.contract import ProvenanceStorageContract
from tests.contract.databases import LARGE_COUNT_OF_MONGODB, empty_mongodb


class TestGrpcOverMongoDb(ProvenanceStorageContract):
    large_count = LARGE_COUNT_OF_MONGODB

    @pytest.fixture
    def storage(self, shared_mongodb_stack: Stack, module_mongodb_url: str) -> Iterator[ProvenanceStorageInterface]:
        empty_mongodb(module_mongodb_url)
        with ProvenanceStorageGrpc(url=shared_mongodb_stack.address) as storage:
            yield storage
