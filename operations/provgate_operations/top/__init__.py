"""`provgate top`: how gateways and workers are doing, live."""
