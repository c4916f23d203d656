"""Packages into the storage: batches, and what happens when the storage fails."""
