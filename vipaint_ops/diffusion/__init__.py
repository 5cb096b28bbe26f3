"""Diffusion: noise schedules, the protocol of a prior, and random streams."""
