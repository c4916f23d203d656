"""Random numbers of tests, which a failure tells how to repeat. A pytest plugin."""

from __future__ import annotations

import os
import random
import secrets
import sys
from typing import Final

import pytest
from hypothesis import settings

SEED: Final = int(os.environ.get("TEST_SEED") or secrets.randbelow(10**9))

# Of an example that fails hypothesis prints the line that repeats it. A busy machine is no failure.
settings.register_profile("provgate", print_blob=True, deadline=None)
settings.load_profile("provgate")


def pytest_report_header() -> str:
    """Says the seed at the beginning too, for a run that is killed."""
    return f"random: TEST_SEED={SEED}"


@pytest.fixture
def drawn(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers of a test's own. What it prints, pytest shows where the test fails."""
    sys.stdout.write(f"TEST_SEED={SEED} repeats what is drawn\n")
    return random.Random(f"{SEED} {request.node.name}")
