"""Fine-tune and evaluate a backbone in Detectron2 itself."""
