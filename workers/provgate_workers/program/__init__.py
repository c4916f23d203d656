"""The worker program and its processes."""
