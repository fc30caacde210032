"""Prompt templates, traits, personas and the verdict grammar.

It calls no model and stores nothing.
"""
