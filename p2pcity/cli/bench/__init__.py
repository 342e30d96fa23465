"""Measures three local nodes under load, and says whether anything was lost on the way."""
