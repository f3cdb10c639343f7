"""Which machine this is, and the configuration of the benchmark for it."""
