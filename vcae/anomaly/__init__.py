"""Anomaly scores: one detector learns from normal recordings alone, and says how unlike them a recording is, where and when."""
