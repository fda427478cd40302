"""Fine-tuning and evaluation in the real Detectron2."""
