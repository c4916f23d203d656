"""The errors of the launcher."""

from __future__ import annotations


class StackError(Exception):
    """The base: a part of the stack is not available. The text tells the user what to do, or where to look."""


class MissingProgramError(StackError):
    """A server's program is not installed on this machine."""


class StartError(StackError):
    """A program ended, or was not ready in time. The text has the end of its log."""
