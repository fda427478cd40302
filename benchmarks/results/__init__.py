"""Results as data: read many of them, search, check, export, import and merge them (docs/results.md)."""
