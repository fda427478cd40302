"""What a run shows while it trains: numbers, pictures, a k-NN accuracy, a profile. Nothing here changes the training."""
