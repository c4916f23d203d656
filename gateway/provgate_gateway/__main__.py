"""`python -m provgate_gateway` is `provgate-gateway`."""

from provgate_config.program import start_program


def main() -> None:
    """Starts the program."""
    start_program("provgate-gateway", "provgate_gateway.cli", "gateway")


if __name__ == "__main__":
    main()
