"""Code that pre-training, transfer and benchmarks share. It imports none of these three packages."""
