"""Whether the gateway can do its work: the health service, readiness, and checks of the topology."""
