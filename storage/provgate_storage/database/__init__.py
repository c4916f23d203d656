"""What every storage over a database has in common."""
