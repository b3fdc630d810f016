"""One pass over a store with a dictionary in inference mode, feeding any number of accumulators."""
