"""The reference keeps the contract that it gives the answers of."""

from __future__ import annotations

import pytest

from provgate_storage.interface import ProvenanceStorageInterface
from tests.contract.contract import ProvenanceStorageContract
from tests.support.reference import InMemoryProvenanceStorage


class TestInMemory(ProvenanceStorageContract):
    @pytest.fixture
    def storage(self) -> ProvenanceStorageInterface:
        return InMemoryProvenanceStorage()
