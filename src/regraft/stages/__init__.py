"""The stages of a run: the only callers of the rooms."""
