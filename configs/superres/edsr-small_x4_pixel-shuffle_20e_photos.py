_base_ = './edsr-small_x2_pixel-shuffle_20e_photos.py'

# modified: the factor; crops of the same size make a step a quarter as long
model = dict(scale_factor=4)
val_evaluator = dict(border=4)
test_evaluator = dict(border=4)
