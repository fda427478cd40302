"""Evaluate a backbone without training it: features are computed once, and every protocol reads them."""
