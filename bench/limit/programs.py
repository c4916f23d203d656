"""The consumers of a pipeline as programs of a stack."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.limit.pipeline import Pipeline
from provgate_stack.processes.leftovers import DIRECTORY_VARIABLE, ROLE_VARIABLE
from provgate_stack.processes.programs import ReadyFileProgram

_CLONE: Final = Path(__file__).resolve().parent.parent.parent


@contextmanager
def consumers(pipeline: Pipeline, directory: Path) -> Iterator[None]:
    """Runs the consumers for the time of a block, as workers of the stack in `directory`: so their CPU is found."""
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
