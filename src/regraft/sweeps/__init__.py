"""Sweeps: what a composed config is called, and which runs are done."""
