"""The names by which the parts of a stack are found again: environment variables, files, directories."""

from __future__ import annotations

from pathlib import Path
from typing import Final

# Names the stack's directory in the environment of each of its processes.
DIRECTORY_VARIABLE: Final = "PROVGATE_STACK_DIRECTORY"

# Names what the process is for: rabbitmq, postgresql, mongodb, workers, gateway.
ROLE_VARIABLE: Final = "PROVGATE_STACK_ROLE"

# In a stack's directory, once its launcher has left it running: its addresses.
RUNNING_FILE: Final = "running.json"

# In a stack's directory: the directories that belong to it and are elsewhere, one a line.
OUTSIDE_FILE: Final = "outside"
OUTSIDE_PARENT: Final = Path("/tmp")
OUTSIDE_PREFIX: Final = "provgate-stack-"
