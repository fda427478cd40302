"""Speed benchmarks of PixBench.

The variants take turns within one run, because on a busy machine only the ratio of their times is meaningful.
"""
