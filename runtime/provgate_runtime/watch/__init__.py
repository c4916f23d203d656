"""What gateway and workers say of themselves to those who run them: metrics, and whether they are alive and ready."""
