"""Batch processing of many files: jobs and their reports, workers, and pools of processes."""
