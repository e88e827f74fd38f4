"""Structures: what is removed together."""
