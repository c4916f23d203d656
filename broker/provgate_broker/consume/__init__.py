"""Deliveries of the work queues, and replies to the gateway."""
