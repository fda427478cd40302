"""Load a backbone into models of a framework, and verify that they compute the same. Needs PyTorch."""
