"""What all tests share: the servers and the stack, of which each is started when the first test asks for it."""

from __future__ import annotations

import signal
from types import FrameType

import pytest

pytest_plugins = (
    "tests.fix_random",
    "tests.fix_servers",
    "tests.fix_stack",
    "tests.fix_gateway",
    "tests.fix_secure_stack",
)


def pytest_configure(config: pytest.Config) -> None:
    # So that fixtures are torn down, and servers stopped, when a CI job is cancelled.
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
