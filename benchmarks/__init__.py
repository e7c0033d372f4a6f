"""Benchmarks: bits against bounds, speed, overhead. `python -m benchmarks [NAME ...]` prints tables and writes JSON."""
