"""Suites of runs, the data they need, and the tables made from their results."""
