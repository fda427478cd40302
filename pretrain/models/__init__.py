"""Networks for pre-training: backbone, heads, feature pyramid, momentum encoder and queue."""
