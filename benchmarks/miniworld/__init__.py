"""The mini world: a small synthetic data set in the layouts of ImageNet, VOC, COCO, LVIS, Cityscapes and ADE20K."""
