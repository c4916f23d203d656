"""What the adapter is made of: messages, calls, retries, and the channel."""
