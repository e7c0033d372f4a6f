"""Random mutations of real payloads and frames, by the million: `python -m benchmarks.fuzz --count 1_000_000`.

mutators: how bytes go wrong. targets: what reads them. campaign: mutants that reach new lines are mutated again, every
decode is watched. `tests/attacks` plays thousands of the same mutations in every run of the tests.
"""
