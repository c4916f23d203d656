"""Exchanges, queues and ranges: the policy, its declaration, and its inspection."""
