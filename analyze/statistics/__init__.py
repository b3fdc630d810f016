"""What a sweep sums up, an idea per file: each is an `analyze.sweep.accumulator.Accumulator`."""
