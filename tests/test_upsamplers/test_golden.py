"""Parity with the published implementations, on the reference vectors of all of them.

Errors are relative to the largest magnitude of the array. Files and keys are described in the
README beside the vectors, those of later methods in the folder of the same name with ``_later``.
The run ends with a table of errors, one row per case.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from mmdysample import build_upsampler
from mmdysample.ops import reassemble, window_similarity

FOLDER = Path(os.environ.get('MMDYSAMPLE_GOLDEN', ''))
FOLDERS = [FOLDER, FOLDER.with_name(f'{FOLDER.name}_later')] if FOLDER.name else []
CASES = {path.stem: path for folder in FOLDERS for path in sorted(folder.glob('*.npz'))}
FAMILIES = {'a2u', 'carafe', 'dysample', 'fade', 'fadelite', 'indexnet', 'sapa', 'sapab', 'sapai'}
LATER_FAMILIES = {'freqfusion', 'ldaaqu', 'sapad'}
OUT_TOLERANCE, GRAD_TOLERANCE = 1e-5, 1e-4

OURS = {
    'A2UUpRaw': 'a2u',
    'CARAFEPack': 'carafe',
    'DySample': 'dysample',
    'FADE': 'fade',
    'FADELite': 'fade_lite',
    'FreqFusion': 'freqfusion',
    'HolisticIndexBlock': 'indexnet',
    'LDA_AQU': 'lda_aqu',
    'SAPA': 'sapa_b',
    'SAPADeform': 'sapa_d',
    'SAPA-I (composition)': 'sapa_i',
}
ARGUMENTS_OF_THE_BUILDER = (
    *('scale', 'scale_factor', 'up_factor'),
    *('in_channels', 'channels', 'in_channels_en', 'in_channels_de', 'inp', 'dim_y', 'dim_x'),
    *('hr_channels', 'lr_channels'),
)
OFFSETS_FROM = {'sim_concat': 'feature', 'sim': 'similarity'}
"""An option of ours that in FreqFusion's code differs between its copies."""
ARGUMENTS_FIXED_HERE = {
    'A2UUpRaw': {'up_kernel': 3},
    'FreqFusion': {
        **dict(up_group=1, encoder_kernel=3, encoder_dilation=1, align_corners=False),
        **dict(upsample_mode='nearest', comp_feat_upsample=True, semi_conv=True),
        **dict(use_high_pass=True, use_low_pass=True, hr_residual=True),
    },
    'HolisticIndexBlock': {'batch_norm': 'BatchNorm2d'},
}


def build_module(case: dict, meta: dict) -> torch.nn.Module:
    fixed = ARGUMENTS_FIXED_HERE.get(meta['class'], {})
    options = {}
    for name, value in meta['args'].items():
        if name in fixed:
            assert value == fixed[name]
        elif name not in ARGUMENTS_OF_THE_BUILDER:
            options[name] = value
    if meta['class'] == 'FreqFusion':
        published = meta['args_of_the_offset_generator']['direction_feat']
        options['offsets_from'] = OFFSETS_FROM[published]
    up = build_upsampler(
        dict(type=OURS[meta['class']], **options),
        in_channels=case['x'].shape[1],
        scale_factor=meta['scale'],
        guide_channels=case['guide'].shape[1] if 'guide' in case else None,
    )
    state = {key.removeprefix('state/'): case[key] for key in case if key.startswith('state/')}
    up.load_state_dict(state, strict=True)
    return up.train(meta['mode'] == 'train')


def run_operator(case: dict, meta: dict) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    geometry = dict(
        kernel_size=meta['args']['kernel_size'],
        groups=meta['args'].get('group_size', 1),
        scale_factor=meta['args']['scale_factor'],
    )
    operator, names = {
        'carafe operator': (reassemble, ('x', 'masks')),
        'av operator': (reassemble, ('value', 'attn')),
        'qk operator': (window_similarity, ('query', 'key')),
    }[meta['class']]
    inputs = [case[name].requires_grad_() for name in names]
    out = operator(*inputs, **geometry)
    out.backward(case['grad_out'])
    return out, {f'grad_{name}': tensor.grad for name, tensor in zip(names, inputs, strict=True)}


def run_module(case: dict, meta: dict) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    up = build_module(case, meta)
    inputs = {name: case[name].requires_grad_() for name in ('x', 'guide') if name in case}
    if 'out_hr' in case:
        out, enhanced = up.fuse(**inputs)
        assert relative_error(enhanced, case['out_hr']) <= OUT_TOLERANCE
        torch.autograd.backward([out, enhanced], [case['grad_out'], case['out_hr_grad']])
    else:
        out = up(**inputs)
        out.backward(case['grad_out'])
    grads = {f'grad_{name}': tensor.grad for name, tensor in inputs.items()}
    for name, parameter in up.named_parameters():
        if parameter.requires_grad:
            # Loading has compared the shapes; one parameter drops axes of length 1 there.
            grads[f'pgrad/{name}'] = parameter.grad.view_as(case[f'pgrad/{name}'])
    for name, buffer in up.named_buffers():
        if f'after/{name}' in case:
            torch.testing.assert_close(buffer, case[f'after/{name}'], rtol=1e-5, atol=1e-6)
    return out, grads


def relative_error(ours: torch.Tensor, published: torch.Tensor) -> float:
    assert ours.shape == published.shape
    error = (ours.double() - published.double()).abs().max()
    return (error / published.double().abs().max().clamp_min(1e-30)).item()


def test_every_family_has_vectors(golden_dir):
    families = {case.split('_')[0] for case in CASES}
    assert families >= FAMILIES
    if FOLDERS[1].is_dir():
        assert families >= LATER_FAMILIES


@pytest.mark.parametrize('name', CASES or ['MMDYSAMPLE_GOLDEN is unset'])
def test_parity(name, golden_dir, record_property):
    if name.split('_')[0] not in FAMILIES | LATER_FAMILIES:
        pytest.skip('no upsampler of ours')
    with np.load(CASES[name]) as file:
        meta = json.loads(str(file['meta']))
        case = {key: torch.from_numpy(file[key]) for key in file.files if key != 'meta'}
    case = {key: t.float() if t.is_floating_point() else t for key, t in case.items()}
    run = run_operator if meta['class'].endswith('operator') else run_module
    out, grads = run(case, meta)
    published = {key for key in case if key.startswith(('grad_', 'pgrad/'))} - {'grad_out'}
    assert set(grads) == published
    errors = {key: relative_error(grad, case[key]) for key, grad in grads.items()}
    worst = max(errors, key=errors.get)
    forward = relative_error(out, case['out'])
    record_property('parity', (name, forward, errors[worst], worst))
    assert out.dtype == torch.float32
    assert forward <= OUT_TOLERANCE
    assert errors[worst] <= GRAD_TOLERANCE, worst
