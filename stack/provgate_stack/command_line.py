"""How the command lines of stack and benchmarks end."""

from __future__ import annotations

import sys
from collections.abc import Callable

from provgate_stack.errors import StackError
from provgate_stack.interrupts import Interrupted, raise_when_interrupted


def run_command_line(command: Callable[[], object]) -> None:
    """Runs a command; an interruption ends it as the signal would have, after everything is cleaned up."""
    raise_when_interrupted()
    try:
        command()
    except StackError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
    except Interrupted as interrupted:
        print("Interrupted.", file=sys.stderr)
        sys.exit(interrupted.exit_code)
