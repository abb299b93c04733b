"""Vocoders: from a mel back to sound."""
