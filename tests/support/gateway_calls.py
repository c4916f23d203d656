"""Calls of a real gateway, and how they end."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from provgate.v1 import model_pb2
from provgate.v1 import provenance_storage_pb2 as pb2
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from tests.support.entries import entry_id
from tests.support.polling import TIMEOUT_S, eventually

SERVICE = "provgate.v1.ProvenanceStorage"

Connected = tuple[grpc.Channel, ProvenanceStorageStub]


@dataclass
class Outcome:
    """How a call ended.

    Attributes:
        code: the status code.
        message: the status message.
        responses: all responses; for a write only its progress.
        details: the details of the status, by the name of their type.
        elapsed_s: the duration.
    """

    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""
    responses: list[Any] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    elapsed_s: float = 0.0

    @property
    def ok(self) -> bool:
        return self.code is grpc.StatusCode.OK

    @property
    def counts(self) -> tuple[int, int, int]:
        """Received, published and acked: from the last response if the call succeeded, else from its status."""
        if self.ok:
            last = self.responses[-1]
            return last.received_count, last.published_count, last.acked_count
        metadata = self.details["ErrorInfo"].metadata
        names = ("received_count", "published_count", "acked_count")
        received, published, acked = (int(metadata[name]) for name in names)
        return received, published, acked

    @property
    def reason(self) -> str:
        return str(self.details["ErrorInfo"].reason)

    @property
    def field_path(self) -> str:
        (violation,) = self.details["BadRequest"].field_violations
        return str(violation.field)


def outcome_of(call: Iterable[Any]) -> Outcome:
    """Reads a call to its end."""
    started_at = time.monotonic()
    outcome = Outcome()
    try:
        for response in call:
            outcome.responses.append(response)
    except grpc.RpcError as error:
        _take_status(outcome, error)
    outcome.elapsed_s = time.monotonic() - started_at
    return outcome


def outcome_of_unary(call: Callable[[], Any]) -> Outcome:
    """Makes a unary call."""

    def responses() -> Iterator[Any]:
        yield call()

    return outcome_of(responses())


def write(
    method: Callable[..., Iterable[Any]], messages: Iterable[Any], timeout_s: float | None = TIMEOUT_S
) -> Outcome:
    """Makes a write, reads it to its end and checks what holds of the progress of every write."""
    outcome = progress_of(outcome_of(method(iter(messages), timeout=timeout_s)))
    _check_progress(outcome)
    return outcome


def progress_of(outcome: Outcome) -> Outcome:
    """Returns the outcome of a write with the progress in place of its responses."""
    outcome.responses = [response.progress for response in outcome.responses]
    return outcome


def check_exhausted(outcome: Outcome, reason: str) -> None:
    """Checks that a call was refused with the time to wait before the next try."""
    assert outcome.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert outcome.reason == reason
    assert outcome.details["RetryInfo"].retry_delay.ToSeconds() >= 1


def _check_progress(outcome: Outcome) -> None:
    counts = [(p.received_count, p.published_count, p.acked_count) for p in outcome.responses]
    if outcome.details.get("ErrorInfo") and "acked_count" in outcome.details["ErrorInfo"].metadata:
        counts.append(outcome.counts)
    for received, published, acked in counts:
        assert received >= published >= acked >= 0
    for earlier, later in pairwise(counts):
        assert all(before <= after for before, after in zip(earlier, later, strict=True))
    if outcome.ok:
        assert len(set(counts[-1])) == 1


def _take_status(outcome: Outcome, error: Any) -> None:
    outcome.code, outcome.message = error.code(), error.details()
    status = rpc_status.from_call(error)
    for packed in status.details if status else []:
        name = packed.type_url.rpartition(".")[2]
        outcome.details[name] = getattr(error_details_pb2, name)()
        packed.Unpack(outcome.details[name])
    if "ErrorInfo" in outcome.details:
        assert outcome.details["ErrorInfo"].domain == "provgate"


class OpenWrite:
    """A ContentAdd whose messages a test sends one by one. `responses` are those that have come."""

    def __init__(self, stub: ProvenanceStorageStub, timeout_s: float | None = TIMEOUT_S) -> None:
        self._messages: queue.SimpleQueue[pb2.ContentAddRequest | None] = queue.SimpleQueue()
        self.call: Any = stub.ContentAdd(iter(self._messages.get, None), timeout=timeout_s)

    def send(self, message: pb2.ContentAddRequest) -> None:
        self._messages.put(message)

    def half_close(self) -> None:
        self._messages.put(None)

    def progress(self) -> pb2.AddProgress:
        """Waits for the next response."""
        progress: pb2.AddProgress = next(self.call).progress
        return progress

    def wait_for(self, reached: Callable[[pb2.AddProgress], bool]) -> pb2.AddProgress:
        """Waits for a response that is as wanted."""
        while not reached(progress := self.progress()):
            pass
        return progress

    def cancel(self) -> None:
        self.call.cancel()
        self.half_close()

    def end(self) -> Outcome:
        """Half-closes and reads the call to its end."""
        self.half_close()
        return progress_of(outcome_of(self.call))


@contextmanager
def connected(address: str) -> Iterator[tuple[grpc.Channel, ProvenanceStorageStub]]:
    """Gives a channel to a gateway that has reached its broker and storage, and a stub of it."""
    with grpc.insecure_channel(address) as channel:
        wait_serving(channel)
        yield channel, ProvenanceStorageStub(channel)


def health(channel: grpc.Channel, service: str = SERVICE, timeout_s: float = 20.0) -> str:
    """Returns what the health service says."""
    request = health_pb2.HealthCheckRequest(service=service)
    response = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout_s)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))


def wait_serving(channel: grpc.Channel) -> None:
    eventually(lambda: health(channel) == "SERVING", "the gateway is healthy")


def contents(count: int, start: int = 0, first_byte: int | None = None) -> pb2.ContentAddRequest:
    """Returns a message of `count` contents."""
    return pb2.ContentAddRequest(
        contents=[model_pb2.Content(id=entry_id(number, first_byte)) for number in range(start, start + count)]
    )
