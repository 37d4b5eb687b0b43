"""Computed cost against published cost, by one stated reading of each published column."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from mmdysample.costs.models import NETWORKS, Network, NetworkCost
from mmdysample.reproduce.tables import Published

SEGFORMER, UPERNET, FASTER_RCNN, MASK_RCNN, PANOPTIC_FPN = (n.table for n in NETWORKS)

COUNTED = {FASTER_RCNN: 4, MASK_RCNN: 4}
"""Upsamplers that a table's parameters count, where that is not how many the model has."""

READING = 'Convolution weights alone: no biases, no normalisation.'
READING_OF_FOUR = f'{READING} Of four upsamplers, where an FPN over C2 to C5 has three.'

REMARKS = {
    (SEGFORMER, 'deconv', 'flops_g'): 'The published number is that of a dense 3x3 convolution at '
    'every output pixel, four times ours. With stride 2 only a quarter of these products exist; '
    'the others multiply the zeros between the input pixels.',
    (
        SEGFORMER,
        'sapa_d',
        'flops_g',
    ): 'The source does not say what it counts. With every corner of '
    'a point counted twice, ours would be 5.28 G.',
    **{
        (SEGFORMER, 'freqfusion', column): 'The authors do not show their options; ours are the '
        'defaults, in the published order of fusion.'
        for column in ('params_m', 'flops_g')
    },
    (UPERNET, 'fade', 'params_m'): 'At the 512 channels of this head FADE has 80,538 parameters, '
    'three of them 0.24 M. The published 0.1 M would be three at 256 channels (0.14 M), or '
    'FADE-Lite (0.08 M).',
    (FASTER_RCNN, 'nearest', 'params_m'): "Not the detector of the framework's config; compare the "
    'differences alone.',
    (PANOPTIC_FPN, 'a2u', 'params_m'): 'Three upsamplers of 20,042 parameters are 60,126. The '
    'published 29.2 K are three times 9,728 = 256 x (36 + 1 + 1): the weights of the three '
    'convolutions that reach the output, without biases, group norms and the unused fourth '
    'convolution.',
}
"""Why single numbers do not agree, by table, row and column. They change no mark."""


@dataclass(frozen=True)
class Comparison:
    """One computed number beside the published one."""

    column: str  # params_m or flops_g, in millions or billions
    computed: float  # ours, by the column's reading
    published: str  # as printed
    agrees: bool  # see the function of that name
    source: str  # key of the publication
    why: str  # what the column counts, or why the numbers differ; empty if there is nothing to say


def agrees(column: str, computed: float, printed: str) -> bool:
    """Tell whether a number is the printed one.

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
    network: Network, cost: NetworkCost, tables: dict[str, dict[str, dict[str, Published]]]
) -> list[Comparison]:
    """Compare a model's cost with its row of the published tables.

    The baseline's numbers are those of the whole model. In the other rows ``params_m`` counts the
    convolution weights of the upsamplers, of as many as :data:`COUNTED` says, and ``flops_g``
    their multiply-accumulates.

    Args:
        network (Network): The network.
        cost (NetworkCost): What it costs.
        tables (dict): The published numbers, from
            :func:`mmdysample.reproduce.tables.load_published`.

    Returns:
        list[Comparison]: One for each confirmed complexity number of that row.
    """
    absolute = cost.upsampler == network.baseline
    weights = cost.upsampler_weights * COUNTED.get(network.table, cost.count) / max(cost.count, 1)
    computed = dict(
        params_m=(cost.params if absolute else weights) / 1e6,
        flops_g=(cost.macs if absolute else cost.upsampler_macs) / 1e9,
    )
    reading = READING_OF_FOUR if network.table in COUNTED else READING
    row = tables.get(network.table, {}).get(cost.upsampler, {})
    comparisons = []
    for column, value in computed.items():
        number = row.get(column)
        if number is None or not number.confirmed:
            continue
        why = reading if column == 'params_m' and not absolute else ''
        why = REMARKS.get((network.table, cost.upsampler, column), why)
        agree = agrees(column, value, number.value)
        comparisons.append(Comparison(column, value, number.value, agree, number.source, why))
    return comparisons
