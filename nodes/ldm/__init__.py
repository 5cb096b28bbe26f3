"""Loaders of latent diffusion checkpoints that the core loaders do not support."""
