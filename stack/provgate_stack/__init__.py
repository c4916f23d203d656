"""Everything on one machine: private RabbitMQ and PostgreSQL, workers, gateway. Demo, tests and benchmarks start it."""
