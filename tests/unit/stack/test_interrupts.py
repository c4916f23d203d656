from __future__ import annotations

import signal
import subprocess
import sys

import pytest

# Cleans up in two steps, between which a second signal comes.
PROGRAM = """
import os, signal
from provgate_stack.command_line import Interrupted, raise_when_interrupted, uninterrupted
raise_when_interrupted()
try:
    with uninterrupted():
        os.kill(os.getpid(), signal.Signals({number}))
        print("shielded")
    print("never")
except Interrupted as interrupted:
    os.kill(os.getpid(), signal.SIGTERM)
    print("cleaned", interrupted.exit_code)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_first_signal_raises_after_the_shield_and_the_second_is_ignored(number: signal.Signals) -> None:
    program = PROGRAM.format(number=int(number))
    # Whatever this process ignores.
    command = ["env", "--default-signal=INT,TERM,HUP", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["shielded", "cleaned", str(128 + number)]
    assert done.returncode == 0


def test_ignored_signal_stays_ignored() -> None:
    program = """
import os, signal
from provgate_stack.command_line import raise_when_interrupted
raise_when_interrupted()
os.kill(os.getpid(), signal.SIGHUP)
print("alive")
"""
    command = ["env", "--ignore-signal=HUP", sys.executable, "-c", program]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stdout == "alive\n"
