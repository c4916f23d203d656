"""One write call: its messages are read, checked, split into packages and bounded."""
