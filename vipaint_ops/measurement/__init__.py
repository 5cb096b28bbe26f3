"""Measurements: an observation, the law of its noise, and the level of that noise."""
