"""The typed edge: YAML in, frozen components out. No torch."""
