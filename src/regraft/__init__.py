"""Regraft: prune a language model, graft its accuracy back, and see which way of doing it wins."""

__version__ = "0.1.0"
