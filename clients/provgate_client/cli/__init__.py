"""The command line `provgate`: one file for each command, `main` to start reading."""

import os

# gRPC's C core logs failures of connections to standard error, where a command prints one line of its own. The core
# reads this variable when it is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from provgate_client.cli.main import main

__all__ = ["main"]
