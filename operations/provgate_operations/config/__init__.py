"""`provgate config`: the configuration in force, and a sample configuration."""
