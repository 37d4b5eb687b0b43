"""The memory that a training step needs, as the system counts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdysample.costs import cpu_memory

pytestmark = pytest.mark.skipif(
    not Path('/proc/self/clear_refs').exists(), reason='only Linux resets the peak of a process'
)

SIDE = 96  # megabytes that the process had free already count for little beside such maps


def test_a_peak_holds_at_least_the_tensors_and_whatever_is_made_beside_them():
    rows = list(cpu_memory.peak_of_training_steps(((1, SIDE, SIDE),), 'small'))
    assert {row['memory_format'] for row in rows} == {'nchw', 'channels_last'}
    x, offset, mib = 256 * SIDE**2, 32 * SIDE**2, 2**20
    for row in rows:
        offsets = 0 if row['name'] == 'bilinear' else offset
        # x and a result of four times its size, all in float32, and as much in gradients.
        assert row['tensors_mib'] == 2 * 4 * (5 * x + offsets) / mib, row
        assert 0.95 * row['tensors_mib'] < row['peak_mib'] < 2 * row['tensors_mib'], row
    beside = {
        row['name']: row['peak_mib'] - row['tensors_mib']
        for row in rows
        if row['memory_format'] == 'nchw'
    }
    # The published code stores a grid of positions in output size.
    assert beside['published'] > beside['bilinear'] + 4 * 2 * 4 * (2 * SIDE) ** 2 / mib
