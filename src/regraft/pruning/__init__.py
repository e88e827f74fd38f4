"""Pruning: scores, what goes together, how much where, and when."""
