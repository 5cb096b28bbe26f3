"""Metrics, plots and degraded test pictures."""
