"""Priors: analytic mixtures, the embedded model, and diffusers models."""
