"""The loss and the metrics against loops and numbers made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from oracles import depth as oracle

pytest.importorskip('mmseg')
from mmseg.evaluation import DepthMetric

from mmdysample.depth import BenchmarkDepthMetric, SigLoss
from mmdysample.depth.metric import depth_errors

INVALID = (0.0, -1.0, math.nan, math.inf)


def maps(invalid_share=0.3, shape=(2, 1, 9, 11)):
    generator = torch.Generator().manual_seed(3)
    prediction = torch.rand(shape, generator=generator) * 8 + 0.2
    target = torch.rand(shape, generator=generator) * 8 + 0.2
    holes = torch.rand(shape, generator=generator) < invalid_share
    target[holes] = torch.tensor(INVALID).repeat(holes.sum() // 4 + 1)[: holes.sum()]
    return prediction, target


# ---- loss --------------------------------------------------------------------------------------


@pytest.mark.parametrize('max_depth', [None, 5.0])
def test_loss_equals_loops(max_depth):
    prediction, target = maps()
    found = SigLoss(max_depth=max_depth, loss_weight=2.0)(prediction, target)
    limit = math.inf if max_depth is None else max_depth
    wanted = 2 * oracle.sig_loss(prediction.numpy(), target.numpy(), max_depth=limit)
    assert found.item() == pytest.approx(wanted, rel=1e-5)


def test_loss_by_hand():
    """1 mm on both depths; of two gaps the sample variance is half their squared difference."""
    first, second = math.log(2.001 / 1.001), math.log(0.006 / 0.002)
    wanted = math.sqrt((first - second) ** 2 / 2 + 0.15 * ((first + second) / 2) ** 2)
    found = SigLoss()(torch.tensor([2.0, 0.005]), torch.tensor([1.0, 0.001]))
    assert found.item() == pytest.approx(wanted, rel=1e-5)
    wanted = math.sqrt((first - second) ** 2 / 4 + 0.15 * ((first + second) / 2) ** 2)
    assert found.item() != pytest.approx(wanted, rel=0.01)  # the population's


def test_invalid_pixels_do_not_reach_loss_or_gradient():
    prediction, target = maps()
    valid = (target > 0) & target.isfinite()
    prediction[~valid] = math.nan
    prediction.requires_grad_()
    loss = SigLoss()(prediction, target)
    loss.backward()
    assert torch.isfinite(loss)
    assert prediction.grad[valid].all() and torch.isfinite(prediction.grad[valid]).all()
    assert not prediction.grad[~valid].any()


@pytest.mark.parametrize('target', [0.0, 1.0], ids=['nothing valid', 'perfect'])
def test_gradients_stay_finite(target):
    prediction = torch.ones(1, 1, 2, 3, requires_grad=True)
    loss = SigLoss()(prediction, torch.full((1, 1, 2, 3), target))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert not prediction.grad.any()


def test_one_pixel_is_enough():
    found = SigLoss()(torch.tensor([2.0]), torch.tensor([1.0]))
    assert found.item() == pytest.approx(math.sqrt(0.15) * math.log(2.001 / 1.001), rel=1e-5)


def test_warm_up_counts_training_steps_and_is_saved():
    prediction, target = maps()
    pair = prediction.numpy(), target.numpy()
    warm, full = oracle.sig_loss(*pair, shift=0.1, variance=0.0), oracle.sig_loss(*pair)
    assert warm != pytest.approx(full, rel=0.1)
    loss = SigLoss(warm_up_iters=2)
    loss.eval()
    assert loss(prediction, target).item() == pytest.approx(full, rel=1e-5)
    loss.train()
    assert loss(prediction, target).item() == pytest.approx(warm, rel=1e-5)
    resumed = SigLoss(warm_up_iters=2)
    resumed.load_state_dict(loss.state_dict())
    assert resumed(prediction, target).item() == pytest.approx(warm, rel=1e-5)
    assert resumed(prediction, target).item() == pytest.approx(full, rel=1e-5)
    assert not SigLoss().state_dict()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(max_depth=0), 'max_depth'),
        (dict(warm_up_iters=-1), 'warm_up_iters'),
        (dict(eps=0), 'eps'),
    ],
)
def test_loss_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        SigLoss(**options)


def test_loss_refuses_other_shapes():
    with pytest.raises(ValueError, match='one shape'):
        SigLoss()(torch.ones(1, 1, 2, 2), torch.ones(1, 2, 2))


# ---- metrics -----------------------------------------------------------------------------------


def test_errors_by_hand():
    """Depths 1, 2, 4, 8 m; ratios 1, 5/4, 3/2 and 2; bounds 1.25, 1.5625, 1.953."""
    truth = torch.tensor([1.0, 2.0, 4.0, 8.0])
    prediction = torch.tensor([1.0, 2.5, 6.0, 4.0])
    found = depth_errors(truth, prediction)
    logs = [0, math.log(1.25), math.log(1.5), -math.log(2)]
    mean = sum(logs) / 4
    assert found == pytest.approx(
        dict(
            d1=1 / 4,
            d2=3 / 4,
            d3=3 / 4,
            abs_rel=(0 + 0.25 + 0.5 + 0.5) / 4,
            sq_rel=(0 + 0.125 + 1 + 2) / 4,
            rmse=math.sqrt((0 + 0.25 + 4 + 16) / 4),
            rmse_log=math.sqrt(sum(x * x for x in logs) / 4),
            log10=math.log10(1.25 * 1.5 * 2) / 4,
            silog=100 * math.sqrt(sum((x - mean) ** 2 for x in logs) / 4),
        )
    )


def test_errors_equal_loops():
    prediction, truth = (x.flatten() for x in maps(invalid_share=0))
    assert depth_errors(truth, prediction) == pytest.approx(
        oracle.errors(truth.tolist(), prediction.tolist())
    )


def sample(truth, prediction):
    return dict(gt_depth_map=dict(data=truth), pred_depth_map=dict(data=prediction))


def evaluate(metric, *pairs):
    for pair in pairs:
        metric.process({}, [sample(*pair)])
    return metric.compute_metrics(metric.results)


def test_mean_is_over_images_and_skips_those_without_depth():
    prediction, truth = maps()
    whole = torch.full_like(truth[0], 2.0)
    metric = BenchmarkDepthMetric(max_depth_eval=5.0)
    found = evaluate(metric, (truth[0], prediction[0]), (whole * 0, whole), (whole, prediction[1]))
    wanted = []
    for t, p in ((truth[0], prediction[0]), (whole, prediction[1])):
        valid = (t > 1e-3) & (t < 5)
        wanted.append(oracle.errors(t[valid].tolist(), p[valid].tolist()))
    assert found == pytest.approx({k: np.mean([w[k] for w in wanted]) for k in wanted[0]}, rel=1e-5)


def test_images_that_the_sampler_repeats_do_not_count():
    """The evaluator keeps the first five rows: an image without depth must have one."""
    whole = torch.full((1, 4, 4), 2.0)
    truths = [whole, whole * 0, whole, whole, whole]
    gaps = [0.1, 0.5, 0.2, 0.2, 0.4]
    pairs = [(truth, whole * (1 + gap)) for truth, gap in zip(truths, gaps, strict=True)]
    metric = BenchmarkDepthMetric(depth_metrics=['abs_rel'])
    for pair in [*pairs, pairs[0]]:
        metric.process({}, [sample(*pair)])
    assert metric.evaluate(size=5) == pytest.approx({'abs_rel': (0.1 + 0.2 + 0.2 + 0.4) / 4})


@pytest.mark.parametrize('names', [['rmse'], ('d1', 'silog')])
def test_metrics_are_chosen_by_name(names):
    prediction, truth = maps(invalid_share=0)
    everything = evaluate(BenchmarkDepthMetric(), (truth[0], prediction[0]))
    found = evaluate(BenchmarkDepthMetric(depth_metrics=names), (truth[0], prediction[0]))
    assert len(everything) == 9
    assert found == {name: everything[name] for name in names}


def test_a_prediction_that_is_nan_is_not_left_out():
    ones = torch.ones(1, 4, 4)
    found = evaluate(BenchmarkDepthMetric(), (ones, ones * math.nan), (ones, ones))
    assert math.isnan(found['abs_rel'])


def test_nothing_to_evaluate_is_nan():
    zeros = torch.zeros(1, 4, 4)
    assert math.isnan(evaluate(BenchmarkDepthMetric(), (zeros, zeros + 1))['abs_rel'])


def test_agrees_with_mmseg_but_for_silog():
    prediction, truth = maps(invalid_share=0, shape=(2, 1, 480, 640))
    pairs = list(zip(truth, prediction, strict=True))
    options = dict(crop_type='nyu_crop', min_depth_eval=1e-3, max_depth_eval=10.0)
    found = evaluate(BenchmarkDepthMetric(**options), *pairs)
    wanted = evaluate(DepthMetric(**options), *pairs)
    found.pop('silog'), wanted.pop('silog')
    assert found == pytest.approx(dict(wanted), rel=1e-4)


@pytest.mark.parametrize(
    ('crop_type', 'size', 'box'),
    [
        ('nyu_crop', (480, 640), (45, 471, 41, 601)),
        ('garg_crop', (352, 1216), (143, 349, 43, 1172)),
        (None, (30, 40), (0, 30, 0, 40)),
    ],
)
def test_only_the_crop_counts(crop_type, size, box):
    """Garg: 0.40810811 * 352 = 143.7, 0.99189189 * 352 = 349.1, 43.7 and 1172.3 of 1216."""
    top, bottom, left, right = box
    truth = torch.ones(1, *size)
    prediction = torch.full_like(truth, 3.0)
    prediction[:, top:bottom, left:right] = 1
    metric = BenchmarkDepthMetric(crop_type=crop_type)
    assert evaluate(metric, (truth, prediction))['abs_rel'] == 0
    for row, column in ((top, left), (bottom - 1, right - 1)):  # and its corners do count
        inside = prediction.clone()
        inside[:, row, column] = 2
        assert evaluate(BenchmarkDepthMetric(crop_type=crop_type), (truth, inside))['abs_rel'] > 0


def test_metric_refuses_unknown_names():
    with pytest.raises(ValueError, match="'kb_crop'"):
        BenchmarkDepthMetric(crop_type='kb_crop')
    with pytest.raises(ValueError, match=r"depth_metrics .*'abs_rel'.* got \['absrel'\]"):
        BenchmarkDepthMetric(depth_metrics=['absrel', 'd1'])
    with pytest.raises(TypeError, match="depth_metrics must be a list of names, got 'd1'"):
        BenchmarkDepthMetric(depth_metrics='d1')


def test_predictions_are_written_and_not_evaluated(tmp_path):
    cv2 = pytest.importorskip('cv2')
    metric = BenchmarkDepthMetric(
        format_only=True, output_dir=str(tmp_path), depth_scale_factor=256
    )
    metric.process({}, [dict(sample(None, torch.full((1, 2, 3), 1.5)), img_path='a/b.png')])
    assert not metric.compute_metrics(metric.results)
    assert (cv2.imread(str(tmp_path / 'b.png'), cv2.IMREAD_UNCHANGED) == 384).all()
