"""Experiments from the papers."""
