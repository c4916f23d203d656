"""`provgate top`: rates, queues, latencies and connections of gateways and workers, live."""
