"""The limit: the simplest pipeline that publishes, consumes and copies into the same tables.

It has no validation, merging, confirms or recovery; its rows are checked after each run. The difference to the stack is
the cost of the stack.
"""
