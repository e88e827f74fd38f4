"""Trackers: a mirror of the run for people to watch."""
