"""Voices: measured, matched, mixed, saved, drawn."""
