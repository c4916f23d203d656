"""`python -m provgate_client.cli` is `provgate`."""

from provgate_client.cli.main import main

main(prog_name="provgate")
