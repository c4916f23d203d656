"""Everything on one machine: private RabbitMQ and database, workers, gateway. Demo, tests and benchmarks start it."""
