"""What the published runs of SegFormer change in mmseg's configs; a config names these parts."""

custom_imports = dict(imports=['mmdysample'])

# A linear layer for each level, and PyTorch's own start of the classifier.
published_head = dict(type='UpsampleSegformerHead', projection='linear', init_cfg=None)
