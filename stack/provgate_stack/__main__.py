"""`python -m provgate_stack`."""

from provgate_stack.cli import main

main()
