"""One opening of a storage: its channel, and what every call over it shares."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import grpc

from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_client.adapter.channel import call_metadata, open_channel, wait_until_ready
from provgate_client.adapter.retrying import call_error, retrying
from provgate_client.errors import ProvgateError, StorageClosedError
from provgate_client.settings import GrpcSettings

R = TypeVar("R")


class GatewaySession:
    """A connected channel. Safe to use from many threads of the process that made it; gRPC does not survive a fork.

    Raises:
        GatewayUnavailableError: there is no connection within the connect timeout.
        ConfigurationError: a file that the settings name cannot be read.
    """

    def __init__(self, settings: GrpcSettings) -> None:
        self.settings = settings
        self._pid = os.getpid()
        self._closed = threading.Event()
        self._channel = open_channel(settings)
        self._stub = ProvenanceStorageStub(self._channel)
        self._metadata = call_metadata(settings)
        try:
            wait_until_ready(self._channel, settings)
        except BaseException:
            self._channel.close()
            raise

    def rpc(self, name: str) -> Any:
        """Returns the RPC of that name.

        Raises:
            StorageClosedError: the session was closed, or belongs to another process.
        """
        if self._closed.is_set():
            raise StorageClosedError("the storage was closed")
        if os.getpid() != self._pid:
            raise StorageClosedError("the storage was opened before this process was forked: open one of its own")
        return partial(getattr(self._stub, name), metadata=self._metadata)

    def failure(self, error: grpc.RpcError, method: str) -> ProvgateError:
        """Returns the error of ours for a call of `method` that ended with `error`."""
        if self._closed.is_set():
            return StorageClosedError(f"{method}: the storage was closed during the call")
        return call_error(error, method)

    def repeat(self, call: Callable[[], R], last_progress_s: Callable[[], float] | None = None) -> R:
        """Calls, and calls again while `retry` says so and the last progress, or the first call, is recent enough.

        Raises:
            CallError: the last call's.
        """
        start_s = time.monotonic()
        return retrying(self.settings.retry_time_s, last_progress_s or (lambda: start_s), self._closed)(call)

    def close(self) -> None:
        """Cancels all calls under way; they raise `StorageClosedError`. Does nothing the second time."""
        self._closed.set()
        if os.getpid() == self._pid:
            self._channel.close()
