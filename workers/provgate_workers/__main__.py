"""`python -m provgate_workers` is `provgate-workers`."""

from provgate_runtime.program import start_program


def main() -> None:
    """Starts the program."""
    start_program("provgate-workers", "provgate_workers.cli.main", "workers")


if __name__ == "__main__":
    main()
