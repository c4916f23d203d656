"""The commands of `provgate-workers`."""
