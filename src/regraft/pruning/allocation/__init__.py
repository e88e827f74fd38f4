"""Allocation: how much each layer loses."""
