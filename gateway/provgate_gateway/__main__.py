"""`python -m provgate_gateway` is `provgate-gateway`."""

import os

from provgate_runtime.program import start_program


def main() -> None:
    """Starts the program."""
    # Set before gRPC is loaded. Its core logs each failed handshake, past our logging and without saying whose it was.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    start_program("provgate-gateway", "provgate_gateway.cli", "gateway")


if __name__ == "__main__":
    main()
