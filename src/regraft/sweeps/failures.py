"""Errors that end a run or a sweep."""


class RunFailed(RuntimeError):
    """A run failed; its record holds the traceback."""


class SweepFailed(RuntimeError):
    """Some runs of a sweep failed; the message lists them."""
