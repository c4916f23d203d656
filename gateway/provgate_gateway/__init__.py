"""The gateway: gRPC in, RabbitMQ out; reads from the local storage."""
