"""A whole stack on one machine: private RabbitMQ and database, workers, gateway. For demo, tests and benchmarks."""
