"""A small world of drawn scenes in the on-disk layouts of ImageNet, PASCAL VOC, COCO and Cityscapes."""
