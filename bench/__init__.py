"""Benchmarks: how fast the stack is, and what it costs."""
