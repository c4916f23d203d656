"""What the storages over a database have in common."""
