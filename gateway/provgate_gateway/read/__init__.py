"""Reads from the local storage: unary and streamed."""
