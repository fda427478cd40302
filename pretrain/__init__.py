"""Self-supervised pre-training of dense backbones: PixPro and the baselines it is compared with."""
