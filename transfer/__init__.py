"""From a pre-trained checkpoint to a fine-tuned detector or segmenter: weight conversion and protocol runners."""
