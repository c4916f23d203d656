"""Random numbers of tests, with the seed that repeats them. A pytest plugin."""

from __future__ import annotations

import os
import random
import secrets
import sys
from typing import Final

import pytest
from hypothesis import settings

SEED: Final = int(os.environ.get("TEST_SEED") or secrets.randbelow(10**9))
# The processes of pytest-xdist use the same seed.
os.environ["TEST_SEED"] = str(SEED)

# hypothesis prints the line that repeats a failed example. A busy machine is no failure.
settings.register_profile("provgate", print_blob=True, deadline=None)
settings.load_profile("provgate")


def pytest_report_header() -> str:
    """Prints the seed at the beginning too, for a run that is killed."""
    return f"random: TEST_SEED={SEED}"


@pytest.fixture
def drawn(request: pytest.FixtureRequest) -> random.Random:
    """A source of random numbers for one test. pytest shows the printed line if the test fails."""
    sys.stdout.write(f"TEST_SEED={SEED} repeats what is drawn\n")
    return random.Random(f"{SEED} {request.node.name}")
