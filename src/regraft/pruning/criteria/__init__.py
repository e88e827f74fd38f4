"""Criteria: which units matter least."""
