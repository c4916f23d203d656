"""The parts of the adapter: the session, messages, writing, reading, and what happens when a call fails."""
