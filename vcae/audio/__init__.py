"""Sound as numbers: files, the one mel, F0, and frame arithmetic."""
