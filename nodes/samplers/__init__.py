"""Nodes that give a SAMPLER."""
