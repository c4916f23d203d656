"""What all tests share: the servers and the stack, of which each is started when the first test asks for it."""

from __future__ import annotations

import signal
from types import FrameType

import pytest

pytest_plugins = (
    "tests.support.fix_random",
    "tests.support.fix_servers",
    "tests.support.fix_stack",
    "tests.support.fix_secure_stack",
)


def pytest_configure(config: pytest.Config) -> None:
    # So that fixtures are torn down, and servers stopped, when a CI job is cancelled.
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
