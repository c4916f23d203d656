"""The errors of the launcher."""

from __future__ import annotations


class StackError(Exception):
    """The base: something of the stack cannot be had. The text is for the user: what to do, or where to look."""


class MissingProgramError(StackError):
    """A server's program is not installed on this machine."""


class StartError(StackError):
    """A program ended, or was not ready in time. The text holds the end of its log."""
