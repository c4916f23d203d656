"""Connections to RabbitMQ through pika."""
