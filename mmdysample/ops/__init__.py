"""Upsampling operators: tensors in, tensors out, PyTorch only."""

from mmdysample.ops.dysample import dysample
from mmdysample.ops.reassembly import reassemble, window_similarity

__all__ = ['dysample', 'reassemble', 'window_similarity']
