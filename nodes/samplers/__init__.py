"""Nodes that return a SAMPLER."""
