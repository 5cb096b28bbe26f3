"""Benchmarks: each module prints a table and writes a plot, `python -m benchmarks.NAME`."""
