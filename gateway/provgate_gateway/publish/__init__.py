"""Packages to the broker, and the replies of the workers back to the calls."""
