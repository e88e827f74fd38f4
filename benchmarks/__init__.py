"""Speed and memory side by side. Each module is a command: `python -m benchmarks.NAME --help`."""
