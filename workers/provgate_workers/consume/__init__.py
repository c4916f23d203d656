"""Packages from the broker: which are taken, deferred or quarantined."""
