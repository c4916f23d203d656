"""Packages and replies as bytes."""
