"""Statistics of results: intervals, comparisons with a baseline, agreement between protocols; see `docs/statistics.md`."""
