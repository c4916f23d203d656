"""Dead letters and quarantined packages."""
