"""The floor of the project: what pre-training, transfer and benchmarks share and what knows none of them."""
