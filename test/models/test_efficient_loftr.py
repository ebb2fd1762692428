"""The parts of Efficient LoFTR against written-out references."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the networks need torch: pip install feature_matcher_ros[torch]")

from torch.nn import functional  # noqa: E402

from feature_matcher_ros.errors import WeightsError  # noqa: E402
from feature_matcher_ros.models.dense_config import EfficientLoftrConfig  # noqa: E402
from feature_matcher_ros.models.dense_network import CellPairs  # noqa: E402
from feature_matcher_ros.models.efficient_loftr import (  # noqa: E402
    AggregatedAttention,
    EfficientLoftr,
    efficient_loftr_from_checkpoint,
    rotate,
)
from feature_matcher_ros.models.efficient_loftr_refinement import refined_offsets  # noqa: E402
from feature_matcher_ros.models.repvgg import RepVggBackbone  # noqa: E402

TINY = EfficientLoftrConfig(widths=(12, 16, 24), blocks=(1, 1, 2), heads=2, rounds=2, has_confidence=True)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def test_merged_blocks_compute_what_the_training_form_computes() -> None:
    backbone = RepVggBackbone((12, 16, 24), (2, 2, 3))
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_()
    backbone.eval()
    image = torch.rand(1, 1, 64, 96)
    expected = backbone(image)
    backbone.merge()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in backbone.modules())
    for found, wanted in zip(backbone(image), expected, strict=True):
        assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def slow_attention(layer: AggregatedAttention, state: np.ndarray, source: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Square by square, head by head; arrays are (C, h, w), cells (h, w) of the source."""
    size, heads, width = layer.size, layer.heads, state.shape[0]

    def normed(vector: np.ndarray) -> np.ndarray:
        scaled = (vector - vector.mean()) / math.sqrt(vector.var() + 1e-5)
        return scaled * layer.norm1.weight.numpy() + layer.norm1.bias.numpy()

    def turned(vector: np.ndarray, row: int, column: int) -> np.ndarray:
        if not layer.is_self:
            return vector
        result = vector.copy()
        for pair in range(width // 2):
            place = (row, column)[pair % 2] + 1
            angle = place * 10000.0 ** (-(pair // 2) / (width // 4))
            cosine, sine = (float(np.float16(value)) for value in (math.cos(angle), math.sin(angle)))
            first, second = vector[2 * pair], vector[2 * pair + 1]
            result[2 * pair], result[2 * pair + 1] = first * cosine - second * sine, second * cosine + first * sine
        return result

    keys, values = [], []
    for row in range(source.shape[1] // size):
        for column in range(source.shape[2] // size):
            square = slice(row * size, (row + 1) * size), slice(column * size, (column + 1) * size)
            inside = cells[square] > 0
            if inside.any():
                pooled = normed(source[(slice(None), *square)][:, inside].max(axis=1))
                keys.append(turned(layer.k_proj.weight.numpy() @ pooled, row, column))
                values.append(layer.v_proj.weight.numpy() @ pooled)
    reduced = np.zeros((width, state.shape[1] // size, state.shape[2] // size))
    for row in range(reduced.shape[1]):
        for column in range(reduced.shape[2]):
            square = state[:, row * size : (row + 1) * size, column * size : (column + 1) * size]
            query = (square * layer.aggregate.weight.numpy()[:, 0]).sum(axis=(1, 2))
            query = turned(layer.q_proj.weight.numpy() @ normed(query), row, column)
            message = []
            for head in range(heads):
                part = slice(head * width // heads, (head + 1) * width // heads)
                logits = np.array([query[part] @ key[part] for key in keys]) / math.sqrt(width // heads)
                weights = np.exp(logits - logits.max())
                message.append(weights @ np.array([value[part] for value in values]) / weights.sum())
            reduced[:, row, column] = layer.merge.weight.numpy() @ np.concatenate(message)
    enlarged = functional.interpolate(torch.from_numpy(reduced)[None], state.shape[1:], mode="bilinear")[0].numpy()
    result = np.empty_like(state)
    for row in range(state.shape[1]):
        for column in range(state.shape[2]):
            hidden = layer.mlp[0].weight.numpy() @ np.concatenate((state[:, row, column], enlarged[:, row, column]))
            update = layer.mlp[2].weight.numpy() @ np.where(hidden > 0, hidden, 0.01 * hidden)
            update = (update - update.mean()) / math.sqrt(update.var() + 1e-5)
            update = update * layer.norm2.weight.numpy() + layer.norm2.bias.numpy()
            result[:, row, column] = state[:, row, column] + update
    return result


@pytest.mark.parametrize("is_self", [True, False])
def test_attention_against_loops(is_self: bool) -> None:
    layer = AggregatedAttention(TINY, is_self).double()
    for norm in (layer.norm1, layer.norm2):
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_()
    state = torch.randn(24, 8, 12, dtype=torch.float64)
    cells = torch.ones(12, 8, dtype=torch.float64)
    cells[:, 5:], cells[7:] = 0.0, 0.0  # squares with some content, and some without any
    source = torch.randn(24, 12, 8, dtype=torch.float64) * cells
    found = layer(state[None], source[None], cells[None, None])[0]
    expected = slow_attention(layer, state.numpy(), source.numpy(), cells.numpy())
    assert np.abs(found.numpy() - expected).max() < 1e-5  # angles are computed in single precision


def test_rotation_depends_on_the_distance_alone() -> None:
    vectors = torch.randn(2, 1, 1, 1, 64)
    first, second = (rotate(vector.expand(1, 9, 9, 64))[0] for vector in vectors)
    products = [(first[row, 2] * second[row + 3, 6]).sum() for row in range(6)]
    assert torch.stack(products).std() < 0.02 * vectors.norm()


def test_refinement_against_features_of_the_size_of_the_image() -> None:
    """The published order: enlarge, cut out windows, multiply."""
    maps = torch.randn(2, 20, 24, 32)
    full = functional.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)
    cells = torch.tensor([9, 10, 18, 22, 30]), torch.tensor([27, 11, 9, 20, 10])
    offsets = refined_offsets((maps[:1], maps[1:]), CellPairs(torch.zeros(5, dtype=torch.int64), *cells))
    for number, (cell0, cell1) in enumerate(zip(*(part.tolist() for part in cells), strict=True)):
        row0, column0, row1, column1 = cell0 // 8 * 8, cell0 % 8 * 8, cell1 // 8 * 8, cell1 % 8 * 8
        window0 = full[0, :, row0 : row0 + 8, column0 : column0 + 8].flatten(1)
        window1 = full[1, :, row1 - 1 : row1 + 9, column1 - 1 : column1 + 9].flatten(1)
        first = window0[:-8].T @ window1[:-8] / 20
        second = (window0[-8:].T @ window1[-8:] / math.sqrt(8)).unflatten(1, (10, 10))
        shares = (first.softmax(0) * first.softmax(1)).unflatten(1, (10, 10))[:, 1:-1, 1:-1].flatten(1)
        pixel0, pixel1 = divmod(int(shares.argmax()), 64)
        around = [(int(pixel1 // 8 + dy) % 10, int(pixel1 % 8 + dx) % 10) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        weights = torch.stack([second[pixel0, row, column] for row, column in around]).div(10.0).softmax(0)
        dx, dy = (weights.unflatten(0, (3, 3)).sum(axis) @ torch.tensor([-1.0, 0.0, 1.0]) for axis in (0, 1))
        assert offsets[0][number].tolist() == [pixel0 % 8 - 3.5, pixel0 // 8 - 3.5]
        expected = torch.stack((pixel1 % 8 - 3.5 + dx, pixel1 // 8 - 3.5 + dy))
        assert (offsets[1][number] - expected).abs().max() < 1e-5


def test_padding_changes_nothing_but_the_edge() -> None:
    """What lies in the padding is seen by no attention."""
    network = EfficientLoftr(TINY).eval()
    image = torch.rand(1, 1, 96, 96)
    cells = torch.ones(1, 1, 12, 12)
    cells[..., 8:] = 0.0
    image[..., 64:] = 0.0
    state = network.encode(image, cells)["state"]
    found = network.round(0, state, state, cells, cells)
    noise = state + (1.0 - cells) * 100.0
    disturbed = network.loftr_coarse.layers[1](state, noise, cells)
    assert (disturbed - network.loftr_coarse.layers[1](state, state, cells)).abs().max() < 1e-5
    assert all((part * (1.0 - cells)).abs().max() == 0 for part in (state, *found))


def test_checkpoints_are_recognised_by_their_tensors() -> None:
    network = EfficientLoftr(TINY)
    stored = {f"matcher.{name}": tensor.half() for name, tensor in network.state_dict().items()}
    assert efficient_loftr_from_checkpoint(stored).config == replace(TINY, heads=1)  # not told by the tensors
    stored.pop("matcher.loftr_coarse.layers.1.merge.weight")
    with pytest.raises(WeightsError, match=r"not one of efficient_loftr.*merge"):
        efficient_loftr_from_checkpoint(stored)
