"""`python -m provgate_gateway` is `provgate-gateway`."""

import os

from provgate_runtime.program import start_program


def main() -> None:
    """Starts the program."""
    # gRPC reads this when it is loaded. At its default its core writes each failed handshake to stderr, without a peer.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    start_program("provgate-gateway", "provgate_gateway.cli", "gateway")


if __name__ == "__main__":
    main()
