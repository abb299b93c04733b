"""Scores of conversions: pairs to convert, judges, and the page that shows them."""
