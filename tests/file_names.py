"""What the name of a config promises."""

from __future__ import annotations

from pathlib import Path

from mmdysample import upsampler_names

OWN_START = {'freqfusion', 'lda_aqu'}
"""Their authors' code draws the upsampler's weights again after the neck's."""


def upsampler_in_name(path: Path) -> str:
    """The upsampler that a file name promises, longest name first."""
    names = sorted(upsampler_names(), key=len, reverse=True)
    return next(name for name in names if f'_{name}_' in path.stem.replace('-', '_'))
