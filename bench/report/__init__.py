"""The results: figures, goals, tables, JSON and a picture."""
