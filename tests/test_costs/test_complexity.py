"""Cost inside the published models: exact integers by hand, and the published figures."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from scripts import run_script

from mmdysample import build_upsampler
from mmdysample.costs.compare import compare
from mmdysample.costs.complexity import UPSAMPLERS, main, to_markdown
from mmdysample.costs.models import NETWORKS, Network, NetworkCost, count_network, count_with_fvcore
from mmdysample.reproduce.tables import load_published

for package in ('mmdet', 'mmseg'):
    pytest.importorskip(package)

ROOT = Path(__file__).parents[2]
SEGFORMER, UPERNET, FASTER_RCNN, _, PANOPTIC_FPN = NETWORKS

C = 256
FREQFUSION = (25 + 9) * (64 * 9 + 1) + 2 * (32 + 8) * (72 * 9 + 1) + 4 * 64  # but for compressors
# Weights and biases of one upsampler at 256 channels, from the layers' shapes.
PARAMETERS = {
    'nearest': 0,
    'bilinear': 0,
    'deconv': C * C * 3 * 3 + C,
    'pixel_shuffle': C * (4 * C) * 3 * 3 + 4 * C,
    'carafe': (C * 64 + 64) + (64 * (25 * 4) * 3 * 3 + 25 * 4),
    'indexnet': C * (2 * C) * 4 * 4 + 2 * (2 * C) + (2 * C) * 4,
    'a2u': 2 * (C * 36 + 36) + 2 * (C * 1 + 1) + 2 * (2 * C),
    'fade': (C * 64 + 64) + C * 64 + (64 * 25 * 3 * 3 + 25) + (C + 1),
    'fade_lite': (C * 25 + 25) + C * 25 + (25 * 3 * 3 + 25) + (C + 1),
    'sapa_b': 2 * (C * 32 + 32) + 2 * (2 * C),
    'sapa_i': 0,
    'sapa_d': 2 * (C * 128 + 128) + (C + 1) * (2 * 4 * 9) * 4,
    'lda_aqu': 2 * C * 64 + 2 * C + 2 * 32 + (32 * 9 + 32 * 18 * 9 + 18) + 9 * 64,
    'freqfusion': 2 * 64 * (C + 1) + FREQFUSION,
    'dysample': C * 32 + 32,
    'dysample_plus': C * 32 + 32 + C * 32,
    'dysample_s': (C // 4) * 16 + 16,
    'dysample_s_plus': (C // 4) * 16 + 16 + (C // 4) * 16,
}

SEGFORMER_SIDES = (16, 32, 64, 32, 64, 64)  # from the coarsest level, the next, and the third
SEGFORMER_PIXELS = sum(side**2 for side in SEGFORMER_SIDES)


@pytest.fixture(scope='module')
def segformer() -> dict[str, NetworkCost]:
    return {name: count_network(SEGFORMER, name) for name in UPSAMPLERS}


@pytest.fixture(scope='module')
def panoptic_fpn() -> dict[str, NetworkCost]:
    return {name: count_network(PANOPTIC_FPN, name) for name in UPSAMPLERS}


@pytest.mark.parametrize('name', UPSAMPLERS)
def test_parameters_in_segformer(segformer: dict[str, NetworkCost], name: str) -> None:
    count = 3 if name in ('nearest', 'bilinear', 'freqfusion') else 6
    parameters = count * PARAMETERS[name]
    if name == 'freqfusion':  # 256, 512 and 768 channels are gathered from step to step
        parameters += 64 * (0 + 1 + 2) * C
    added = segformer[name].params - segformer['bilinear'].params
    assert segformer[name].count == count
    assert added == segformer[name].upsampler_params == parameters


@pytest.mark.parametrize('name', sorted({*UPSAMPLERS} - {'nearest', 'bilinear', 'freqfusion'}))
def test_macs_in_segformer(segformer: dict[str, NetworkCost], name: str) -> None:
    """Six calls, and nothing else changes; ``test_macs.py`` proves what one of them costs."""
    upsampler = build_upsampler(name, C)
    expected = sum(upsampler.macs(side, side) for side in SEGFORMER_SIDES)
    assert segformer[name].upsampler_macs == expected
    assert segformer[name].macs == segformer['nearest'].macs + expected


def test_freqfusion_in_segformer(segformer: dict[str, NetworkCost]) -> None:
    """As published: each step upsamples what is gathered and enhances the finer level."""
    expected = 0
    for side, gathered in ((16, C), (32, 2 * C), (64, 3 * C)):
        coarse = gathered * 64 + 64 * (25 + 9) * 9  # compressor, both kinds of logits
        coarse += 8 * 64 + 2 * 72 * 9 * 32  # similarities; offsets and their scales
        fine = C * 64 + 64 * (25 + 9) * 9 + 64 * 9  # the same, and the compressed guide smoothed
        fine += 8 * 64 + 2 * 72 * 9 * 8 + 8  # an offset times its scale
        fine += 25 * (25 + 9) + 25 * gathered + 4 * gathered  # logits and feature raised; corners
        fine += 9 * C  # the guide smoothed
        expected += side**2 * (coarse + 4 * fine)
    assert segformer['freqfusion'].upsampler_macs == expected
    assert segformer['freqfusion'].macs == segformer['nearest'].macs + expected


def test_interpolations_in_segformer(segformer: dict[str, NetworkCost]) -> None:
    """Three levels of 256 channels, each resized at once to 128 x 128."""
    assert segformer['nearest'].upsampler_macs == 0
    assert segformer['bilinear'].upsampler_macs == 3 * 4 * C * 128**2


def test_segformer_agrees_with_the_published_figures_by_one_reading(
    segformer: dict[str, NetworkCost],
) -> None:
    """Of each column; the deconvolution's products with zeros are what that leaves over."""
    tables = load_published()
    compared = {
        (name, item.column): item
        for name, cost in segformer.items()
        for item in compare(SEGFORMER, cost, tables)
    }
    assert len(compared) == 24  # 12 rows' parameters, 12 rows' multiply-accumulates
    assert {key for key, item in compared.items() if not item.agrees} == {
        *(('deconv', 'flops_g'), ('sapa_d', 'flops_g')),
        *(('freqfusion', 'flops_g'), ('freqfusion', 'params_m')),
    }
    readings = {
        item.why
        for (name, column), item in compared.items()
        if column == 'params_m' and name != 'freqfusion'
    }
    assert readings == {'', 'Convolution weights alone: no biases, no normalisation.'}
    for name, cost in segformer.items():
        if (name, 'params_m') in compared and name != SEGFORMER.baseline:
            assert compared[name, 'params_m'].computed == cost.upsampler_weights / 1e6


def test_published_deconv_counts_zeros(segformer: dict[str, NetworkCost]) -> None:
    """+34.4 G are dense convolutions at all output pixels; a quarter of the products exist."""
    dense = 4 * SEGFORMER_PIXELS * 9 * C * C
    assert dense == segformer['pixel_shuffle'].upsampler_macs == 34_426_847_232
    assert segformer['deconv'].upsampler_macs == dense // 4


@pytest.mark.parametrize('name', UPSAMPLERS)
def test_parameters_in_panoptic_fpn(panoptic_fpn: dict[str, NetworkCost], name: str) -> None:
    added = panoptic_fpn[name].params - panoptic_fpn['nearest'].params
    assert panoptic_fpn[name].count == 3
    assert added == panoptic_fpn[name].upsampler_params == 3 * PARAMETERS[name]


def test_panoptic_fpn_agrees_but_for_a2u(panoptic_fpn: dict[str, NetworkCost]) -> None:
    """Published +29.2 K: the weights that reach the output, without biases and group norms."""
    assert 3 * PARAMETERS['a2u'] == 60_126 and 3 * C * (36 + 1 + 1) == 29_184
    tables = load_published()
    compared = {name: compare(PANOPTIC_FPN, cost, tables) for name, cost in panoptic_fpn.items()}
    items = {name: found[0] for name, found in compared.items() if found}
    assert len(items) >= 9
    assert [name for name, item in items.items() if not item.agrees] == ['a2u']
    assert '60,126' in items['a2u'].why and '29.2' in items['a2u'].why


@pytest.mark.parametrize('network', [SEGFORMER, UPERNET], ids=lambda network: network.name)
def test_the_rest_is_what_fvcore_counts(network: Network) -> None:
    """Another counter, on real tensors. UPerNet has bilinear resizes, SegFormer attention."""
    pytest.importorskip('fvcore')
    network = replace(network, size=(128, 128))
    cost = count_network(network, network.baseline)
    assert cost.macs - cost.upsampler_macs == count_with_fvcore(network)


def test_a_detectors_second_stage_is_counted() -> None:
    """The box head's three linear layers, by hand, over what remains without it."""
    cost = count_network(FASTER_RCNN, 'nearest')
    box_head = 1000 * (256 * 7 * 7 * 1024 + 1024 * 1024 + 1024 * (81 + 80 * 4))
    convolutions = 201_627_401_472  # fvcore's count of them at 800 x 1344
    assert cost.macs == convolutions + box_head


def test_command_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / 'deep' / 'complexity.json'
    arguments = ['--models', 'SegFormer-B1', '--upsamplers', 'carafe', '--out', str(out)]
    main(arguments)
    printed = capsys.readouterr()
    results = json.loads(out.read_text(encoding='utf-8'))
    assert printed.out == to_markdown(results)
    assert '2/2' in printed.err  # the baseline, and carafe
    assert [row['upsampler'] for row in results['models'][0]['rows']] == ['bilinear', 'carafe']
    assert results['provenance']['versions']['torch']


def test_command_takes_an_upsampler_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / 'my_upsamplers.py').write_text(
        'from mmdysample import register_upsampler\n'
        'from mmdysample.upsamplers import Interpolate\n'
        "register_upsampler('mine', mode='bicubic')(Interpolate)\n"
    )
    command = [sys.executable, str(ROOT / 'tools/analysis/complexity.py'), '--models']
    done = subprocess.run(
        [*command, '--import', 'my_upsamplers', '--upsamplers', 'mine'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f'| mine | 0 | 0 | {16 * C * 240 * 240 / 1e9:.3f} |' in done.stdout


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--upsamplers', 'dysampel'], 'dysampel is not registered; registered are a2u, '),
        (['--import', 'no_such_module'], "--import no_such_module: No module named 'no_such"),
    ],
)
def test_command_refuses(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(['--models', 'SegFormer-B1', *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_command_compares_with_a_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    published = tmp_path / 'tables.yaml'
    published.write_text(
        f'{SEGFORMER.table}:\n  columns: [flops_g, params_m]\n  rows:\n'
        '    carafe: {values: [9.99, 0.44], status: confirmed, source: s}\n'
        '    deconv: {values: [34.4, 3.5], status: recalled, source: s}\n'
    )
    models = ['--models', 'SegFormer-B1', '--upsamplers', 'carafe', 'deconv']
    main([*models, '--published', str(published)])
    printed = capsys.readouterr().out
    assert '9.99 ≠' in printed and '0.44 ✓' in printed
    assert '34.4' not in printed


def test_command_runs_from_the_checkout_with_torch_alone(tmp_path: Path) -> None:
    """In a process that cannot find the frameworks, fvcore or PyYAML."""
    tool = ROOT / 'tools' / 'analysis' / 'complexity.py'
    script = f"""
import runpy
sys.argv = [{str(tool)!r}, '--upsamplers', 'dysample', 'sapa_b', '--out', 'counted.json']
runpy.run_path(sys.argv[0], run_name='__main__')
"""
    absent = ('mmcv', 'mmengine', 'mmdet', 'mmseg', 'fvcore', 'yaml')
    done = run_script(script, without=absent, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [
        '| dysample | 8,224 | 8,192 | 0.177 |',
        '| sapa_b | 17,472 | 16,384 | 1.005 |',
    ]
    assert json.loads((tmp_path / 'counted.json').read_text())['upsamplers'][0]['params'] == 8224


def test_document_quotes_the_results() -> None:
    results = json.loads((ROOT / 'docs/benchmarks/complexity.json').read_text(encoding='utf-8'))
    document = (ROOT / 'docs/complexity.md').read_text(encoding='utf-8')
    assert to_markdown(results) in document
    assert results['provenance']['command'] in document
