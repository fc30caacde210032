"""Reward factorization in arrays: fit, adapt, select, evaluate. It knows no files of the warehouse and no language model API."""
