"""Benchmarks: what a load and a change cost. `python -m bench.run --help`."""
