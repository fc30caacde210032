"""Reward factorization in arrays: fit, adapt, select, evaluate; no warehouse, no language model."""
