"""The start of a program whose libraries may not be installed."""

from __future__ import annotations

import sys
from importlib import import_module


def start_program(name: str, module: str, extra: str) -> None:
    """Runs the command line of a program, or says which extra is not installed and exits with 1.

    Args:
        name: of the program, for people.
        module: whose `main` it is.
        extra: of the distribution, with the libraries that the module needs.
    """
    try:
        main = import_module(module).main
    except ModuleNotFoundError as error:
        sys.exit(f"Error: {name} needs {error.name}, which is not installed: pip install 'provgate[{extra}]'")
    main(prog_name=name)
