"""The configuration, as it is in force and as it may be."""
