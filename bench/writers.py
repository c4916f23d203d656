"""How a client process reaches what it writes to. All of it can be sent to another process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from bench.limit.pipeline import Pipeline
from bench.limit.publisher import Publisher
from bench.loads import Write, add
from provgate_storage import get_provenance_storage


class Writer(Protocol):
    """Something that is written to."""

    def opened(self) -> Any:
        """Returns a context manager of a function that makes one call and returns when all of it is committed."""


@dataclass(frozen=True, slots=True)
class StorageWriter:
    """A storage: `config` is what `get_provenance_storage` takes."""

    config: Mapping[str, Any]

    @contextmanager
    def opened(self) -> Iterator[Callable[[Write], None]]:
        with get_provenance_storage(**self.config) as storage:
            yield partial(add, storage)


@dataclass(frozen=True, slots=True)
class PipelineWriter:
    """A pipeline whose consumers run."""

    pipeline: Pipeline

    @contextmanager
    def opened(self) -> Iterator[Callable[[Write], None]]:
        publisher = Publisher(self.pipeline)
        yield publisher.write
        publisher.close()
