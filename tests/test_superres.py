"""Super-resolution: the degradation against Pillow, the metric by its definition, one training."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

pytest.importorskip('mmseg')
pytest.importorskip('skimage')

from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image

from mmdysample.engine import test as test_tool
from mmdysample.engine import train as train_tool
from mmdysample.engine.launch import project_root
from mmdysample.superres import DegradePreprocessor, PictureMetric, SuperResolver

CONFIGS = project_root() / 'configs/superres'
ROWS = ('pixel-shuffle', 'bilinear', 'dysample')


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth noise, ``(H, W, 3)``, uint8."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize('scale_factor', [2, 4])
def test_the_coarse_picture_is_pillows(scale_factor):
    whole = picture(43, 54)
    tensor = torch.from_numpy(whole[..., ::-1].copy()).permute(2, 0, 1)
    made = DegradePreprocessor(scale_factor)(dict(inputs=[tensor]))
    cut = whole[: 43 - 43 % scale_factor, : 54 - 54 % scale_factor]
    np.testing.assert_array_equal(made['target'][0].mul(255).round().permute(1, 2, 0).numpy(), cut)
    size = (cut.shape[1] // scale_factor, cut.shape[0] // scale_factor)
    expected = np.asarray(Image.fromarray(cut).resize(size, Image.Resampling.BICUBIC), float)
    got = made['inputs'][0].mul(255).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(got, got.round(), atol=1e-3)
    assert np.abs(got - expected).max() <= 1.001  # Pillow rounds between its two passes


@pytest.mark.parametrize('deviation', [0.7, 2.0])
def test_the_blurred_picture_is_scipys(deviation):
    """In float64, with the same cut at four deviations and the same mirror at the border."""
    ndimage = pytest.importorskip('scipy.ndimage')
    whole = picture(43, 54).copy()
    whole[20:26, :6] = 255
    whole[23, 3] = 0
    tensor = torch.from_numpy(whole[..., ::-1].copy()).permute(2, 0, 1)
    made = DegradePreprocessor(2, blur=deviation)(dict(inputs=[tensor]))
    cut = whole[:42].astype(float)
    np.testing.assert_array_equal(made['target'][0].mul(255).round().permute(1, 2, 0).numpy(), cut)
    radius = int(np.ceil(4 * deviation))
    options = dict(sigma=(deviation, deviation, 0), mode='mirror', radius=(radius, radius, 0))
    expected = ndimage.gaussian_filter(cut, **options)
    assert np.abs(expected - cut).max() > 20
    got = made['inputs'][0].mul(255).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(got, got.round(), atol=1e-3)
    assert np.abs(got - expected).max() <= 0.501


@pytest.mark.parametrize('blur', [0, -1.0, float('nan'), 'much', True])
def test_a_blur_that_is_none_is_refused(blur):
    with pytest.raises(ValueError, match=f'blur must be a positive number of pixels, got {blur!r}'):
        DegradePreprocessor(2, blur=blur)


def luma(picture: np.ndarray) -> np.ndarray:
    return 16 + picture.astype(float) @ [65.481, 128.553, 24.966] / 255


def ssim_by_loops(a: np.ndarray, b: np.ndarray) -> float:
    """Eq. 13 of Wang et al. (2004): windows of 11 x 11 pixels, a Gaussian of deviation 1.5."""
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weights = np.outer(line, line) / line.sum() ** 2
    found = []
    for y, x in np.ndindex(a.shape[0] - 10, a.shape[1] - 10):
        p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
        mp, mq = (weights * p).sum(), (weights * q).sum()
        vp, vq = (weights * (p - mp) ** 2).sum(), (weights * (q - mq) ** 2).sum()
        covariance = (weights * (p - mp) * (q - mq)).sum()
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        found.append(
            (2 * mp * mq + c1) * (2 * covariance + c2) / (mp**2 + mq**2 + c1) / (vp + vq + c2)
        )
    return float(np.mean(found))


def test_metric_by_its_definition():
    metric, expected = PictureMetric(border=2), []
    for seed in (0, 1):
        truth = picture(24, 28, seed)
        noise = np.random.default_rng(seed).normal(0, 20, truth.shape)
        ours = np.clip(truth + noise, -30, 290)
        sample = {
            name: torch.from_numpy(value / 255.0).permute(2, 0, 1)
            for name, value in (('target', truth), ('prediction', ours))
        }
        metric.process(None, [sample])
        seen = np.clip(ours, 0, 255).round()
        a, b = (luma(p)[2:-2, 2:-2] for p in (truth, seen))
        psnr = 10 * np.log10(255**2 / np.mean((a - b) ** 2))
        expected.append((psnr, ssim_by_loops(a, b)))
    got = metric.compute_metrics(metric.results)
    assert [got['PSNR'], got['SSIM']] == pytest.approx(np.mean(expected, axis=0).tolist(), rel=1e-6)


def test_a_network_that_adds_nothing_is_bicubic():
    model = SuperResolver(4, dict(type='dysample'), channels=16, num_blocks=1)
    for parameter in model.output.convolution.parameters():
        torch.nn.init.zeros_(parameter)
    coarse = torch.rand(1, 3, 6, 7)
    expected = torch.nn.functional.interpolate(coarse, scale_factor=4, mode='bicubic')
    torch.testing.assert_close(model(coarse), expected)


def test_deblurring_works_at_half_the_size_and_starts_from_the_input():
    model = SuperResolver(2, dict(type='dysample'), channels=16, num_blocks=1, blur=2.0)
    seen = []
    for module in (model.blocks, model.tail):
        module.register_forward_hook(lambda _, args, out: seen.append(tuple(out.shape)))
    blurred = torch.rand(1, 3, 12, 14)
    assert model(blurred).shape == blurred.shape
    assert seen == [(1, 16, 6, 7)] * 2
    for parameter in model.output.convolution.parameters():
        torch.nn.init.zeros_(parameter)
    torch.testing.assert_close(model(blurred), blurred)


@pytest.mark.parametrize('task', ['x', 'deblur'])
@pytest.mark.parametrize('row', ROWS)
def test_a_row_trains_and_is_tested(row, task, tmp_path, monkeypatch):
    for seed, folder in enumerate(('camvid/images/train', 'camvid/images/val', 'nuclei/train',
                                   'nuclei/val')):  # fmt: skip
        (tmp_path / 'data' / folder).mkdir(parents=True)
        Image.fromarray(picture(100, 104, seed)).save(tmp_path / 'data' / folder / 'a.jpg')
    monkeypatch.chdir(tmp_path)
    if task == 'x':
        task = 'x4' if row == 'dysample' else 'x2'
    config = str(CONFIGS / f'edsr-small_{task}_{row}_20e_photos.py')
    short = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'train_dataloader.batch_size=2']
    small = ['model.channels=16', 'model.num_blocks=1']
    options = ['--cfg-options', *short, *small, 'param_scheduler.end=1', 'param_scheduler.T_max=1']
    common = ['--work-dir', 'out', *options]
    assert train_tool.main([config, '--seed', '0', '--no-tensorboard', *common]) == 0
    assert test_tool.main([config, 'out/epoch_1.pth', *common]) == 0
    logs = [json.loads(log.read_text().splitlines()[-1]) for log in tmp_path.glob('out/*/*.json')]
    results = [log['PSNR'] for log in logs if 'PSNR' in log]
    assert results and all(10 < psnr < 60 for psnr in results)


def test_pictures_for_the_report(tmp_path, monkeypatch):
    pytest.importorskip('pandas')
    from mmdysample.reproduce.pictures import draw_pictures
    from mmdysample.reproduce.results import find_runs, run_folder
    from mmdysample.reproduce.tables import load_tables

    for folder in ('camvid/images/val', 'nuclei/val'):
        (tmp_path / 'data' / folder).mkdir(parents=True)
        Image.fromarray(picture(81, 120)).save(tmp_path / 'data' / folder / 'a.jpg', quality=100)
    monkeypatch.chdir(tmp_path)
    table = load_tables('small')['superres_x4']
    for row in ('pixel_shuffle', 'dysample'):
        folder = run_folder(tmp_path, table, row, 0)
        folder.mkdir(parents=True)
        cfg = Config.fromfile(project_root() / table.rows[row].config)
        cfg.dump(folder / 'config.py')
        state = MODELS.build(cfg.model).state_dict()
        torch.save(dict(state_dict=state, meta={}), folder / 'last.pth')
        record = dict(row=row, seed=0, metrics=dict(psnr=30.0, ssim=0.9))
        record |= dict(config_dump='config.py', checkpoint='last.pth')
        (folder / 'result.json').write_text(json.dumps(record))
    (drawn,), note = draw_pictures(table, find_runs(tmp_path, table), tmp_path, 1)
    assert note == '' and drawn['titles'] == ['image', 'truth', 'pixel_shuffle', 'dysample']
    strip = np.asarray(Image.open(tmp_path / drawn['file'])).astype(int)
    upper = strip[: strip.shape[0] // 2 - 8]
    image, truth, *others = (upper[:, 328 * k : 328 * k + 320] for k in range(4))
    assert np.median(np.abs(truth - image)) < 4
    assert all(np.abs(other - truth).max() > 20 for other in others)
