"""Voices: measuring, mixing, saving, matching of conversions to a voice, and generating new voices."""
