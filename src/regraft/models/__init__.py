"""Models: where they come from, how they are built, run, and saved."""
