"""The synthetic default data of all demo configs, rendered into data_root when first used."""

data_root = 'data/scenes/'
scenes = dict(num_train=240, num_val=80, size=(192, 256), seed=0)
