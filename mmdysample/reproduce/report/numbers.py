"""How numbers and names are written, the same way in every form of the report."""

from __future__ import annotations

import math

COLUMNS = {
    'miou': ('mIoU', '%'),
    'biou': ('bIoU', '%'),
    'ap': ('AP', '%'),
    'ap50': ('AP50', '%'),
    'ap75': ('AP75', '%'),
    'ap_s': ('AP small', '%'),
    'ap_m': ('AP medium', '%'),
    'ap_l': ('AP large', '%'),
    'box_ap': ('box AP', '%'),
    'mask_ap': ('mask AP', '%'),
    'mask_ap50': ('mask AP50', '%'),
    'mask_ap75': ('mask AP75', '%'),
    'mask_ap_s': ('mask AP small', '%'),
    'mask_ap_m': ('mask AP medium', '%'),
    'mask_ap_l': ('mask AP large', '%'),
    'pq': ('PQ', '%'),
    'pq_th': ('PQ things', '%'),
    'pq_st': ('PQ stuff', '%'),
    'sq': ('SQ', '%'),
    'rq': ('RQ', '%'),
    'delta1': ('δ1', ''),
    'delta2': ('δ2', ''),
    'delta3': ('δ3', ''),
    'abs_rel': ('Abs Rel', ''),
    'rmse': ('RMSE', 'm'),
    'log10': ('log10', ''),
    'sq_rel': ('Sq Rel', 'm'),
    'flops_g': ('FLOPs', 'G'),
    'params_m': ('parameters', 'M'),
    'backbone': ('backbone', ''),
}
"""Headings of columns, and their units."""

_STEPS = (('G', 1e9), ('M', 1e6), ('K', 1e3))


def label(column: str) -> str:
    """Name a column for readers."""
    return COLUMNS.get(column, (column.replace('_', ' '), ''))[0]


def unit(column: str) -> str:
    """Name a column's unit; empty if it has none."""
    return COLUMNS.get(column, ('', ''))[1]


def fixed(value: float, digits: int) -> str:
    """Write a number with that many decimals, a true minus sign and no minus zero."""
    text = f'{value:.{digits}f}'
    return text.lstrip('-') if float(text) == 0 else text.replace('-', '−')


def signed(value: float, digits: int) -> str:
    """Write a difference: as :func:`fixed`, with a plus sign where it is above zero."""
    text = fixed(value, digits)
    return text if text.startswith('−') or float(text) == 0 else f'+{text}'


def count(value: float) -> str:
    """Write a number of parameters or operations to three digits, with K, M or G."""
    for letter, size in _STEPS:
        if abs(value) >= 0.9995 * size:
            return f'{_three_digits(value / size)} {letter}'
    return f'{value:.0f}'


def milliseconds(value: float) -> str:
    """Write a latency to three digits."""
    return f'{_three_digits(value)} ms'


def duration(seconds: float) -> str:
    """Write a time: seconds, minutes, or hours and minutes."""
    if seconds < 90:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 120 else f'{minutes // 60} h {minutes % 60} min'


def _three_digits(value: float) -> str:
    rounded = abs(float(f'{value:.3g}'))
    whole = math.floor(math.log10(rounded)) + 1 if rounded else 1
    return f'{value:.{min(max(3 - whole, 0), 3)}f}'
