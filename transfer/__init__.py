"""Convert a pre-trained checkpoint and fine-tune it as a detector or segmenter under a published protocol."""
