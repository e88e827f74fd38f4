"""Losses: one file each, its formula at the top."""
