"""AMQP in, local storage out: the range workers and the program that hosts them."""
