"""What gateway and workers share: topology and ranges, the wire format, and the connections to RabbitMQ."""
