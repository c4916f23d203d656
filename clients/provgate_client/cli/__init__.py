"""The command line `provgate`: one file for each command, `main` to start reading."""

from provgate_client.cli.main import main

__all__ = ["main"]
