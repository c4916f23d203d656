"""A test that draws prints its seed where it fails, and the seed repeats what was drawn."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

CLONE = Path(__file__).resolve().parents[2]
DRAWS = """
from hypothesis import given, strategies as st

def test_draws(drawn):
    raise AssertionError(f"drew {drawn.random()}")

@given(st.integers())
def test_of_hypothesis(number):
    assert number < 1000
"""


def failed(tmp_path: Path, **environment: str) -> str:
    (tmp_path / "test_draws.py").write_text(DRAWS)
    plugins = ["-p", "tests.support.fix_random", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, str(tmp_path)]
    inherited = {name: value for name, value in os.environ.items() if name != "TEST_SEED"}
    environment = inherited | {"PYTHONPATH": str(CLONE), **environment}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def drew(output: str) -> str:
    found = re.search(r"drew (0\S+)", output)
    assert found is not None, output
    return found[1]


def test_a_failure_tells_how_to_repeat_it(tmp_path: Path) -> None:
    first = failed(tmp_path)
    seed = re.search(r"TEST_SEED=(\d+) repeats", first)
    assert seed is not None, first
    assert "@reproduce_failure(" in first
    assert drew(failed(tmp_path, TEST_SEED=seed[1])) == drew(first)
    assert drew(failed(tmp_path, TEST_SEED=str(int(seed[1]) + 1))) != drew(first)
