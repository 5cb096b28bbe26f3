"""Loaders of latent diffusion checkpoints that the stock loaders do not read."""
