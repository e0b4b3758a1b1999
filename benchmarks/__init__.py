"""Measurements beside peers and physical limits; each writes JSON to `benchmarks/results/`."""
