from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, TypeAlias

import grpc
import pytest

from provgate_client.storage import ProvenanceStorageGrpc
from tests.support.gateway_double import GatewayDouble

OpenStorage: TypeAlias = Callable[..., ProvenanceStorageGrpc]

DATE = datetime(2004, 2, 29, tzinfo=UTC)
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def make_ids(count: int, first: int = 0) -> list[bytes]:
    return [number.to_bytes(20, "big") for number in range(first, first + count)]


@pytest.fixture
def gateway() -> Iterator[GatewayDouble]:
    with GatewayDouble() as running:
        yield running


@pytest.fixture
def open_storage(gateway: GatewayDouble) -> Iterator[OpenStorage]:
    """Returns what opens an adapter to the gateway; closed at the end."""
    with ExitStack() as stack:

        def open_it(**settings: Any) -> ProvenanceStorageGrpc:
            return stack.enter_context(ProvenanceStorageGrpc(**{"url": gateway.address} | settings))

        yield open_it


@pytest.fixture
def storage(open_storage: OpenStorage) -> ProvenanceStorageGrpc:
    return open_storage()
