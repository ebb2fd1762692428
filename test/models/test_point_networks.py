"""The parts of the networks that are not plain convolutions, against arithmetic written out."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the models need torch: pip install feature_matcher_ros[torch]")

from feature_matcher_ros.errors import WeightsError  # noqa: E402
from feature_matcher_ros.models import aliked  # noqa: E402
from feature_matcher_ros.models.point_network import inner, keep_maxima, sample, scores_of_cells  # noqa: E402
from feature_matcher_ros.models.point_networks import point_network_from_checkpoint  # noqa: E402


def random(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(shape[-1]).random(shape))


def bilinear(image: np.ndarray, x: float, y: float) -> np.ndarray:
    total = np.zeros(len(image))
    for row, column in ((int(np.floor(y)) + i, int(np.floor(x)) + j) for i in (0, 1) for j in (0, 1)):
        if 0 <= row < image.shape[1] and 0 <= column < image.shape[2]:
            total += image[:, row, column] * (1 - abs(x - column)) * (1 - abs(y - row))
    return total


def test_maxima_are_kept_as_by_repeated_suppression() -> None:
    scores = random(1, 1, 40, 50)
    kept = keep_maxima(scores, 2)[0, 0].numpy()
    rows, columns = np.nonzero(kept)
    assert kept.max() == scores.max()
    distance = np.maximum(np.abs(rows[:, None] - rows), np.abs(columns[:, None] - columns))
    assert np.all(distance[~np.eye(len(rows), dtype=bool)] > 2)
    alone = torch.nn.functional.max_pool2d(scores, 5, 1, 2) == scores
    assert np.all(kept[alone[0, 0].numpy()] > 0)
    assert len(rows) > alone.sum()  # what remained after the first suppression had its turn


def test_a_border_is_set_to_zero() -> None:
    valid = torch.ones(1, 1, 8, 9)
    valid[..., :2, :] = 0
    valid[..., -1] = 0
    scores = inner(torch.ones(1, 1, 8, 9), valid, 2)[0, 0]
    assert scores.sum() == 2 * 4
    assert scores[4:6, 2:6].min() == 1


def test_sampling_is_bilinear_and_zero_outside() -> None:
    features = random(1, 3, 7, 9)
    pixels = torch.tensor([[0.0, 0.0], [8.0, 6.0], [3.25, 4.5], [-0.5, 2.0], [8.5, 6.5], [20.0, 3.0]]).double()
    expected = [bilinear(features[0].numpy(), float(x), float(y)) for x, y in pixels]
    assert np.allclose(sample(features, pixels).T, expected)


def test_cells_become_pixels_row_by_row() -> None:
    logits = torch.full((1, 65, 2, 3), -50.0)
    logits[0, 8 * 5 + 3, 1, 2] = 50.0  # row 5, column 3 of the cell in row 1, column 2
    scores = scores_of_cells(logits)[0, 0]
    assert scores.shape == (16, 24)
    assert torch.argmax(scores) == (8 + 5) * 24 + (16 + 3)


def test_a_deformable_convolution_takes_its_taps_where_the_offsets_say() -> None:
    torch.manual_seed(0)
    conv = aliked._DeformableConv(3, 4).double()
    x = random(1, 3, 8, 10)
    offsets = conv.offset_conv(x).clamp(-2.5, 2.5)[0].detach().numpy()
    found = conv(x)[0].detach().numpy()
    weight = conv.regular_conv.weight.detach().numpy()
    for row, column in ((0, 0), (3, 5), (7, 9)):
        expected = sum(
            weight[:, :, tap // 3, tap % 3]
            @ bilinear(
                x[0].numpy(),
                column + tap % 3 - 1 + offsets[2 * tap + 1, row, column],
                row + tap // 3 - 1 + offsets[2 * tap, row, column],
            )
            for tap in range(9)
        )
        assert np.allclose(found[:, row, column], expected)


def test_points_shift_to_the_soft_maximum() -> None:
    scores = random(1, 1, 9, 9)
    found = aliked._shifts(scores)[:, 4, 5]
    weights = np.exp(scores[0, 0, 2:7, 3:8].numpy() / 0.1)
    steps = np.arange(-2, 3)
    expected = [(weights * steps).sum() / weights.sum(), (weights * steps[:, None]).sum() / weights.sum()]
    assert np.allclose(found, expected)


def test_checkpoints_of_other_networks_are_refused() -> None:
    with pytest.raises(WeightsError, match="not one of xfeat"):
        point_network_from_checkpoint("xfeat", {"conv1a.weight": torch.ones(1)})
    with pytest.raises(WeightsError, match=r"no network 'r2d2'.*choose aliked, disk, superpoint or xfeat"):
        point_network_from_checkpoint("r2d2", {})
