"""Batch sources: what the recovery reads, one file each."""
