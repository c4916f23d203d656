"""The plain rows between packages: checks and merges."""
