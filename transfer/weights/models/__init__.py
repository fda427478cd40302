"""Live models: a backbone into a framework's own, and the proof that they compute the same. Needs PyTorch."""
