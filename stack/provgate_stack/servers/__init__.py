"""RabbitMQ, PostgreSQL and MongoDB: installed, and started on free ports."""
