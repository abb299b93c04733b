"""Anomaly detection: detectors that learn from normal recordings only, and classifiers that recognise unknown sounds."""
