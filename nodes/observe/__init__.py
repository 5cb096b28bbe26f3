"""Nodes that create an observation."""
