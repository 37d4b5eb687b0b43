"""Deblurring of road scenes (CamVid) and cell nuclei: the network of super-resolution x2.

Pictures are blurred by a Gaussian of two pixels. The first convolution halves them, and the
upsampler brings them back to their size.
"""

_base_ = './edsr-small_x2_pixel-shuffle_20e_photos.py'

model = dict(blur=2.0)
