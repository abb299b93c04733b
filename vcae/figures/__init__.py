"""Pictures of recordings, and HTML pages of results."""
