"""Upsampling operators: tensors in, tensors out, PyTorch only."""

from mmdysample.ops.dysample import dysample

__all__ = ['dysample']
