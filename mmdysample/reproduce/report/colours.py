"""One colour and dash for each row, the same in every figure."""

from __future__ import annotations

from dataclasses import dataclass

GREY = '#868e99'
_SUFFIXES = ('_r101', '_swin_b', '_swin_l')

# Okabe and Ito's, told apart by the colour-blind, then darker ones of Tol's; each is legible on
# white and on near-black.
_COLOURS = {
    'dysample': '#0077bb',
    'dysample_s': '#56b4e9',
    'dysample_plus': '#d55e00',
    'dysample_s_plus': '#cc79a7',
    'carafe': '#e69f00',
    'fade': '#009e73',
    'fade_lite': '#009e73',
    'sapa_b': '#9a5fb0',
    'sapa_i': '#9a5fb0',
    'sapa_d': '#9a5fb0',
    'indexnet': '#999933',
    'a2u': '#44aa99',
    'deconv': '#b0563f',
    'pixel_shuffle': '#a6761d',
    'freqfusion': '#c2509a',
    'bilinear': GREY,
    'nearest': GREY,
}
_OTHERS = ('#56b4e9', '#e69f00', '#009e73', '#cc79a7', '#0077bb', '#d55e00')
_DASHED = ('fade_lite', 'sapa_i', 'sapa_d')


@dataclass(frozen=True)
class Style:
    """How a row is drawn.

    Args:
        colour (str): As CSS has it.
        dashed (bool): Whether its lines are dashed and its dots hollow.
    """

    colour: str
    dashed: bool = False


def upsampler_of(row: str) -> str:
    """Name a row's upsampler: its own name, without that of a backbone."""
    for suffix in _SUFFIXES:
        row = row.removesuffix(suffix)
    return row


def styles(rows: list[str], baseline: str) -> dict[str, Style]:
    """Choose how the rows of a table are drawn.

    A row on a second backbone has its upsampler's colour and is dashed, as are those whose colour
    is another's.

    Args:
        rows (list[str]): Names of rows.
        baseline (str): The one that is drawn in grey, not dashed.
    """
    others = iter(_OTHERS * (1 + len(rows) // len(_OTHERS)))
    chosen: dict[str, Style] = {}
    for row in rows:
        stem = upsampler_of(row)
        colour = _COLOURS.get(stem) or next(others)
        dashed = stem in _DASHED or any(style.colour == colour for style in chosen.values())
        chosen[row] = Style(GREY) if row == baseline else Style(colour, dashed)
    return chosen
