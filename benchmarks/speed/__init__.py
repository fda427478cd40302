"""Benchmarks of our own code: variants take turns within one run, since only their ratio means anything on a busy machine."""
