"""The limit: the plainest pipeline that publishes, consumes and copies into the same tables, with nothing around it.

It validates nothing, merges nothing, confirms nothing and survives nothing; what it writes is checked after each run.
What the stack does beside this is what the stack costs.
"""
