"""The servers of a benchmark: private ones, whatever the environment names."""

from __future__ import annotations

import os

import pytest

import bench.__main__ as program
from bench.parts import MONGODB_PARTS, PARTS
from bench.report.results import Results
from bench.session import Sizes

VARIABLES = ("PROVGATE_AMQP_URL", "PROVGATE_POSTGRES_DSN", "PROVGATE_MONGODB_URL")


class StartedError(Exception):
    """Ends the benchmark where it starts its stack."""


@pytest.mark.parametrize("storage", ["postgresql", "mongodb"])
def test_no_server_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, storage: str) -> None:
    def start(*_: object) -> None:
        assert not set(VARIABLES) & set(os.environ)
        raise StartedError

    for variable in VARIABLES:
        monkeypatch.setenv(variable, "somebody's")
    monkeypatch.setattr(program, "temporary_stack", start)
    parts = MONGODB_PARTS if storage == "mongodb" else PARTS
    with pytest.raises(StartedError):
        program._run(parts[:1], storage, Results(), Sizes())
