"""Benchmarks: throughput, latency, memory and CPU time of the stack, and of simpler systems beside it."""
