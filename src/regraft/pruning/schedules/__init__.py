"""Schedules: when how much is removed."""
