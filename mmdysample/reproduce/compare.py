"""Computed cost against published cost, with what each published figure counts."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from mmdysample.costs.models import Network, NetworkCost
from mmdysample.reproduce.published import Figure

SEGFORMER = 'semantic_segmentation_segformer_b1_ade20k'
UPERNET = 'semantic_segmentation_upernet_r50_ade20k'
FASTER_RCNN = 'object_detection_faster_rcnn_coco'
PANOPTIC_FPN = 'panoptic_segmentation_panoptic_fpn_coco'


@dataclass(frozen=True)
class Reading:
    """How a published figure counts, where that is not "all of the upsamplers, once".

    Args:
        why (str): The difference, in words.
        weights_only (bool): Convolution weights alone, no biases and no normalisation.
            Defaults to False.
        count (int, optional): Number of upsamplers counted. Defaults to None, those there are.
        factor (int): What else a count is multiplied by. Defaults to 1.
    """

    why: str
    weights_only: bool = False
    count: int | None = None
    factor: int = 1


_PLAIN = Reading('')
_NO_BIAS = Reading('Weights alone, without biases.', weights_only=True)
_FOUR = 'Four upsamplers, where an FPN over C2 to C5 has three'
_FOUR_ROWS = ('deconv', 'pixel_shuffle', 'carafe', 'indexnet', 'a2u', 'fade', 'sapa_b')
_WEIGHT_ROWS = ('dysample', 'dysample_plus')

READINGS = {
    (SEGFORMER, 'deconv', 'flops_g'): Reading(
        'A dense 3x3 convolution at every output pixel. With stride 2 only a quarter of these '
        'products exist; the others multiply the zeros between the input pixels.',
        factor=4,
    ),
    **{(SEGFORMER, f'dysample{tail}', 'params_m'): _NO_BIAS for tail in ('', '_s', '_plus')},
    (SEGFORMER, 'dysample_s_plus', 'params_m'): _NO_BIAS,
    (UPERNET, 'fade', 'params_m'): Reading(
        'At the 512 channels of this head FADE has 80,538 parameters, three of them 0.24 M. The '
        'published 0.1 M would be three at 256 channels (0.14 M), or FADE-Lite (0.08 M).'
    ),
    (FASTER_RCNN, 'nearest', 'params_m'): Reading(
        "Not the detector of the framework's config; compare the differences alone."
    ),
    **{(FASTER_RCNN, row, 'params_m'): Reading(f'{_FOUR}.', count=4) for row in _FOUR_ROWS},
    **{
        (FASTER_RCNN, row, 'params_m'): Reading(
            f'{_FOUR}; weights alone, without biases.', weights_only=True, count=4
        )
        for row in _WEIGHT_ROWS
    },
    **{(PANOPTIC_FPN, row, 'params_m'): _NO_BIAS for row in _WEIGHT_ROWS},
    (PANOPTIC_FPN, 'a2u', 'params_m'): Reading(
        'Three upsamplers of 20,042 parameters are 60,126. The published 29.2 K are three times '
        '9,728 = 256 x (36 + 1 + 1): the weights of the three convolutions that reach the output, '
        'without biases, group norms and the unused fourth convolution.'
    ),
}
"""Readings by table, row and column; figures without one count all parameters, as built."""


@dataclass(frozen=True)
class Comparison:
    """One computed number beside the published one.

    Args:
        column (str): ``'params_m'`` or ``'flops_g'``, in millions or billions.
        computed (float): Ours, counted as the published one is.
        published (str): As printed.
        agrees (bool): Whether they agree, see :func:`agrees`.
        source (str): Key of the publication.
        why (str): What the published figure counts otherwise; empty if nothing.
    """

    column: str
    computed: float
    published: str
    agrees: bool
    source: str
    why: str


def agrees(column: str, computed: float, printed: str) -> bool:
    """Whether a number is the printed one.

    Differences of rounded totals are off by up to one unit of the last digit, hence that slack:
    15.91 + 0.747 is 16.7, and 16.7 - 15.9 is 0.8.

    Args:
        column (str): ``'params_m'``: equal up to one unit of the last printed digit;
            ``'flops_g'``: or up to 3 %.
        computed (float): The number.
        printed (str): The published one, as printed.

    Returns:
        bool: Whether they agree.
    """
    published = Decimal(printed)
    slack = Decimal(1).scaleb(published.as_tuple().exponent)
    if column == 'flops_g':
        slack = max(slack, Decimal('0.03') * published)
    return abs(Decimal(str(computed)) - published) <= slack


def compare(
    network: Network, cost: NetworkCost, tables: dict[str, dict[str, dict[str, Figure]]]
) -> list[Comparison]:
    """Compare a network's cost with its row of the published tables.

    Args:
        network (Network): The network.
        cost (NetworkCost): What it costs.
        tables (dict): The published figures, from
            :func:`mmdysample.reproduce.published.load_published`.

    Returns:
        list[Comparison]: One for each confirmed complexity figure of that row.
    """
    row = tables.get(network.table, {}).get(cost.upsampler, {})
    comparisons = []
    for column in ('params_m', 'flops_g'):
        figure = row.get(column)
        if figure is None or not figure.confirmed:
            continue
        reading = READINGS.get((network.table, cost.upsampler, column), _PLAIN)
        computed = _read(column, cost, reading, absolute=cost.upsampler == network.baseline)
        agree = agrees(column, computed, figure.value)
        comparisons.append(
            Comparison(column, computed, figure.value, agree, figure.source, reading.why)
        )
    return comparisons


def _read(column: str, cost: NetworkCost, reading: Reading, absolute: bool) -> float:
    """Count as the published figure counts, in its unit."""
    if column == 'flops_g':
        return (cost.macs if absolute else cost.upsampler_macs) * reading.factor / 1e9
    if absolute:
        return cost.params / 1e6
    params = cost.upsampler_weights if reading.weights_only else cost.upsampler_params
    return params * (reading.count or cost.count) / cost.count / 1e6
