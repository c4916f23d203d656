"""A pipeline: what its publisher and consumers have in common, and the consumers as programs of a stack."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from provgate_stack.processes.leftovers import DIRECTORY_VARIABLE, ROLE_VARIABLE
from provgate_stack.processes.programs import ReadyFileProgram

_CLONE: Final = Path(__file__).resolve().parent.parent.parent

RANGE_COUNT: Final = 16


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One pipeline.

    Attributes:
        name: the prefix of its queues.
        amqp_url: the broker.
        dsn: the database, with the schema in place.
        package_entries: the largest number of entries of a package.
        batch_entries: the number of entries at which a transaction takes no more packages.
        copies: whether rows are copied; otherwise a transaction inserts one package with one statement.
        processes: the number of consumer programs.
    """

    name: str
    amqp_url: str
    dsn: str
    package_entries: int
    batch_entries: int
    copies: bool
    processes: int

    def queue(self, number: int) -> str:
        """Returns the name of the queue of a range."""
        return f"bench.{self.name}.{number:x}"

    def save(self, directory: Path) -> Path:
        """Writes the pipeline to a file that `load` reads."""
        path = directory / f"{self.name}.json"
        # It holds the passwords of the servers.
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: Path) -> Pipeline:
        """Returns the pipeline that a file holds."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


@contextmanager
def consumers(pipeline: Pipeline, directory: Path) -> Iterator[None]:
    """Runs the consumers for a block. They are marked as workers of the stack in `directory`, to measure their CPU."""
    file = pipeline.save(directory)
    marks = {DIRECTORY_VARIABLE: str(directory), ROLE_VARIABLE: "workers"}
    environment = os.environ | marks | {"PYTHONPATH": str(_CLONE)}
    programs = []
    try:
        for number in range(pipeline.processes):
            command = [sys.executable, "-m", "bench.limit.consumer", str(file), str(number)]
            program = ReadyFileProgram(command, environment, directory / f"{pipeline.name}-{number}.log")
            program.start()
            programs.append(program)
        for program in programs:
            program.wait_ready()
        yield
    finally:
        for program in programs:
            program.kill()
