"""The writes that are measured, and the rows that they leave."""
