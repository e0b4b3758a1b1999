"""Differential privacy: exact noise and what it promises."""
