"""Nodes that describe an observation."""
