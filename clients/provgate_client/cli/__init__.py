"""The command line `provgate`: one file for each command, `main` to start reading."""

import os

# gRPC's C core tells what happens to connections on standard error, where a command says one line of its own. It reads
# this when it is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from provgate_client.cli.main import main

__all__ = ["main"]
