"""Upsampling operators and one downsampling: tensors in, tensors out, PyTorch only."""

from mmdysample.ops.dysample import dysample
from mmdysample.ops.dysample.downsample import dysample_down
from mmdysample.ops.reassembly import reassemble, window_similarity

__all__ = ['dysample', 'dysample_down', 'reassemble', 'window_similarity']
