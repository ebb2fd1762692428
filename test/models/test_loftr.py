"""The parts of LoFTR against written-out references."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the networks need torch: pip install feature_matcher_ros[torch]")

from feature_matcher_ros.errors import WeightsError  # noqa: E402
from feature_matcher_ros.models.dense_config import LoftrConfig  # noqa: E402
from feature_matcher_ros.models.dense_matching import best_pairs, log_dual_softmax, masked_logits  # noqa: E402
from feature_matcher_ros.models.loftr import (  # noqa: E402
    Loftr,
    attend,
    expected_offsets,
    is_loftr,
    loftr_from_checkpoint,
    position_encoding,
)
from feature_matcher_ros.models.optimal_transport import log_transport, matched_log_transport  # noqa: E402


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def test_linear_attention_against_the_sum_over_all_pairs() -> None:
    query, key, value = (torch.randn(1, 2, count, 5, dtype=torch.float64) for count in (7, 9, 9))
    is_seen = torch.ones(1, 1, 9, 1, dtype=torch.float64)
    is_seen[:, :, 6:] = 0.0
    found = attend(query, key, value, is_seen).numpy()

    def phi(vector: np.ndarray) -> np.ndarray:
        return np.where(vector > 0, vector + 1.0, np.exp(vector))

    for head in range(2):
        for row in range(7):
            weights = [phi(query[0, head, row].numpy()) @ phi(key[0, head, column].numpy()) for column in range(6)]
            mean = sum(weight * value[0, head, column].numpy() for column, weight in enumerate(weights)) / sum(weights)
            assert np.abs(found[0, head, row] - mean).max() < 1e-6


def test_position_encoding_against_the_formula() -> None:
    found = position_encoding(torch.zeros(1, 16, 6, 9))
    for channel in range(16):
        for row in range(6):
            for column in range(9):
                place = (column, row)[channel % 4 // 2] + 1
                angle = place * math.exp(-2 * (channel // 4))
                expected = (math.sin, math.cos)[channel % 2](angle)
                assert found[channel, row, column] == pytest.approx(expected, abs=1e-5)


def test_dual_softmax_and_mutually_best_pairs_against_loops() -> None:
    state0, state1 = 3.0 * torch.randn(1, 4, 3, 5), 3.0 * torch.randn(1, 4, 4, 3)
    cells0, cells1 = torch.ones(1, 1, 3, 5), torch.ones(1, 1, 4, 3)
    cells0[..., 4:], cells1[:, :, 3:] = 0.0, 0.0
    log_scores = log_dual_softmax(masked_logits(state0, state1, cells0, cells1))
    best0, values0, values1 = (part[0].numpy() for part in best_pairs(log_scores))
    found = {(row, int(best0[row])) for row in range(15) if values0[row] == values1[best0[row]] and values0[row] > -50}

    seen0, seen1 = (np.flatnonzero(cells.numpy().ravel()) for cells in (cells0, cells1))
    vectors0, vectors1 = (state[0].flatten(1).T.double().numpy() for state in (state0, state1))
    products = {(row, column): math.exp(vectors0[row] @ vectors1[column]) for row in seen0 for column in seen1}
    scores = {
        (row, column): product
        / sum(products[row, other] for other in seen1)
        * product
        / sum(products[other, column] for other in seen0)
        for (row, column), product in products.items()
    }
    for (row, column), score in scores.items():
        assert math.exp(log_scores[0, row, column]) == pytest.approx(score, rel=1e-3, abs=1e-7)
    mutual = {
        (row, column)
        for (row, column), score in scores.items()
        if score == max(scores[row, other] for other in seen1) == max(scores[other, column] for other in seen0)
    }
    assert found == mutual
    assert len(mutual) >= 3


@pytest.mark.parametrize("iterations", [3, 200])
def test_transport_against_scaling_of_a_matrix(iterations: int) -> None:
    """Sinkhorn's iterations in the plain domain, on what is seen alone."""
    scores, dustbin = 2.0 * torch.randn(1, 5, 7, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    seen0, seen1 = torch.ones(1, 5, dtype=torch.float64), torch.ones(1, 7, dtype=torch.float64)
    seen0[:, 4], seen1[:, 5:] = 0.0, 0.0
    hidden = (seen0[:, :, None] * seen1[:, None]) == 0
    found = log_transport(scores.masked_fill(hidden, -1e9), dustbin, seen0, seen1, iterations)[0].exp().numpy()

    kernel = np.full((5, 6), math.exp(0.5))  # four rows and five columns are seen
    kernel[:4, :5] = np.exp(scores[0, :4, :5].numpy())
    rows, columns = np.array([1, 1, 1, 1, 5.0]), np.array([1, 1, 1, 1, 1, 4.0])
    right = np.ones(6)
    for _ in range(iterations):
        left = rows / (kernel @ right)
        right = columns / (kernel.T @ left)
    expected = left[:, None] * kernel * right
    chosen = np.ix_([0, 1, 2, 3, 5], [0, 1, 2, 3, 4, 7])
    assert np.abs(found[chosen] - expected).max() < 1e-9
    assert found[4].max() < 1e-9
    if iterations > 100:
        assert np.allclose(found[:4].sum(axis=1), 1.0)
        assert np.allclose(found[:, :5].sum(axis=0), 1.0)


def test_what_mostly_goes_to_a_dustbin_is_not_matched() -> None:
    transport = torch.tensor([[0.6, 0.1, 0.3], [0.1, 0.4, 0.5], [0.3, 0.5, 1.2]]).log()[None]
    found = matched_log_transport(transport)[0].exp()
    assert found.tolist() == [[pytest.approx(0.6), 0.0], [0.0, 0.0]]


def test_expectation_finds_a_planted_peak() -> None:
    """In pixels of the image, two for each feature; of two equal peaks, the middle, and how far they are from it."""
    centre = torch.tensor([[0.0, 6.0, 0.0, 8.0]]).expand(2, -1)
    window0 = torch.randn(2, 4, 5, 5)
    window0[:, :, 2, 2] = centre
    window1 = torch.zeros(2, 4, 5, 5)
    window1[0, :, 1, 4] = centre[0]
    window1[1, :, 0, 2], window1[1, :, 4, 2] = centre[1], centre[1]
    mean, variance = expected_offsets(window0, window1)
    assert mean.tolist() == [pytest.approx([4.0, -2.0], abs=1e-4), pytest.approx([0.0, 0.0], abs=1e-4)]
    assert variance.tolist() == pytest.approx([0.0, 16.0], abs=1e-3)


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published checkpoint, as the public code of LoFTR and kornia has them."""
    shapes: dict[str, tuple[int, ...]] = {"backbone.conv1.weight": (128, 1, 7, 7)}

    def norm(name: str, width: int) -> None:
        shapes.update({f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.num_batches_tracked"] = ()

    norm("backbone.bn1", 128)
    for layer, (before, width) in enumerate(((128, 128), (128, 196), (196, 256)), start=1):
        for block in (0, 1):
            name = f"backbone.layer{layer}.{block}"
            shapes[f"{name}.conv1.weight"] = (width, before if block == 0 else width, 3, 3)
            shapes[f"{name}.conv2.weight"] = (width, width, 3, 3)
            norm(f"{name}.bn1", width)
            norm(f"{name}.bn2", width)
        if layer > 1:
            shapes[f"backbone.layer{layer}.0.downsample.0.weight"] = (width, before, 1, 1)
            norm(f"backbone.layer{layer}.0.downsample.1", width)
    shapes["backbone.layer3_outconv.weight"] = (256, 256, 1, 1)
    for layer, (width, wider) in ((2, (196, 256)), (1, (128, 196))):
        shapes[f"backbone.layer{layer}_outconv.weight"] = (wider, width, 1, 1)
        shapes[f"backbone.layer{layer}_outconv2.0.weight"] = (wider, wider, 3, 3)
        norm(f"backbone.layer{layer}_outconv2.1", wider)
        shapes[f"backbone.layer{layer}_outconv2.3.weight"] = (width, wider, 3, 3)
    for part, count, width in (("loftr_coarse", 8, 256), ("loftr_fine", 2, 128)):
        for layer in range(count):
            name = f"{part}.layers.{layer}"
            shapes |= {f"{name}.{key}.weight": (width, width) for key in ("q_proj", "k_proj", "v_proj", "merge")}
            shapes[f"{name}.mlp.0.weight"] = (2 * width, 2 * width)
            shapes[f"{name}.mlp.2.weight"] = (width, 2 * width)
            shapes |= {f"{name}.norm{n}.{key}": (width,) for n in (1, 2) for key in ("weight", "bias")}
    for key in ("down_proj", "merge_feat"):
        shapes[f"fine_preprocess.{key}.weight"] = (128, 256)
        shapes[f"fine_preprocess.{key}.bias"] = (128,)
    return shapes


def test_tensors_are_those_of_the_published_checkpoint() -> None:
    assert {name: tuple(tensor.shape) for name, tensor in Loftr().state_dict().items()} == published_shapes()
    assert len(published_shapes()) == 211
    assert sum(math.prod(shape) for shape in published_shapes().values()) == 11_568_177


def test_checkpoints_are_recognised_by_their_tensors() -> None:
    tensors = {f"matcher.{name}": torch.zeros(shape).half() for name, shape in published_shapes().items()}
    assert is_loftr(tensors)
    network = loftr_from_checkpoint(tensors)
    assert network.config == LoftrConfig()
    assert not network.training
    transport = loftr_from_checkpoint(tensors | {"matcher.coarse_matching.bin_score": torch.tensor(2.5)})
    assert transport.config == LoftrConfig(has_dustbin=True)
    assert transport.coarse_matching.bin_score == 2.5
    tensors.pop("matcher.loftr_coarse.layers.1.merge.weight")
    with pytest.raises(WeightsError, match=r"not one of loftr.*merge"):
        loftr_from_checkpoint(tensors)
