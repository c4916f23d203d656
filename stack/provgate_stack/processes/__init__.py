"""Child programs: start, readiness, stop, and the clean-up after a launcher that was killed."""
