"""`provgate doctor`: finds problems, and says why they matter and how to fix them."""
