"""The losses of detector-free networks against arithmetic written out with loops, gradients by finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install feature_matcher_ros[torch]")

from feature_matcher_ros.models.dense_matching import log_dual_softmax  # noqa: E402
from feature_matcher_ros.training.dense_ground_truth import NO_PIXEL  # noqa: E402
from feature_matcher_ros.training.dense_loss import coarse_loss  # noqa: E402
from feature_matcher_ros.training.ground_truth import IGNORED, UNMATCHABLE  # noqa: E402
from feature_matcher_ros.training.refinement_loss import (  # noqa: E402
    fraction_loss,
    pixel_loss,
    variance_weighted_loss,
)

Array = np.ndarray
PARTNER = np.array([[2, UNMATCHABLE, IGNORED, 0], [1, UNMATCHABLE, 4, UNMATCHABLE]])


def random(*shape: int, scale: float = 1.0) -> Array:
    return scale * np.random.default_rng(sum(shape)).standard_normal(shape)


def softmax(values: Array) -> Array:
    powers = [math.exp(value) for value in values]
    return np.array([power / sum(powers) for power in powers])


def written_out_coarse(logits: Array) -> float:
    """LoFTR, section 3.5, with the focal factor 0.25 (1 - p)^2."""
    terms = []
    for pair, partners in zip(logits, PARTNER, strict=True):
        for i, j in enumerate(partners):
            if j >= 0:
                probability = softmax(pair[i])[j] * softmax(pair[:, j])[i]
                terms.append(-0.25 * (1.0 - probability) ** 2 * math.log(probability))
    return sum(terms) / len(terms)


def pixel_targets() -> Array:
    """Three windows: one with many pairs of pixels, one with a single one, one with none."""
    pixel1 = np.full((3, 64), NO_PIXEL)
    pixel1[0, 5:60] = np.random.default_rng(1).permutation(64)[:55]
    pixel1[1, 17] = 0
    return pixel1


def in_surroundings(pixel: int) -> int:
    """Number of a pixel of a window of 8x8 in the one of 10x10 around it."""
    return (pixel // 8 + 1) * 10 + pixel % 8 + 1


def written_out_pixels(similarities: Array) -> float:
    """Efficient LoFTR, section 3.5: first stage of refinement."""
    terms = []
    for window, targets in zip(similarities, pixel_targets(), strict=True):
        for pixel0, pixel1 in enumerate(targets):
            if pixel1 != NO_PIXEL:
                place = in_surroundings(pixel1)
                terms.append(-math.log(softmax(window[pixel0])[place] * softmax(window[:, place])[pixel0]))
    return sum(terms) / len(terms)


FRACTION = random(3, 64, 2, scale=0.3)


def written_out_fractions(similarities: Array) -> float:
    """Second stage: expectation over nine places, which begin two above and left of the pixel and go around."""
    terms = []
    for window, targets, truths in zip(similarities, pixel_targets(), FRACTION, strict=True):
        for pixel0, pixel1 in enumerate(targets):
            if pixel1 == NO_PIXEL:
                continue
            steps = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)]
            places = [(pixel1 // 8 + row) % 10 * 10 + (pixel1 % 8 + column) % 10 for row, column in steps]
            weights = softmax(window[pixel0][places] / 10.0)
            x = sum(weight * column for weight, (_, column) in zip(weights, steps, strict=True))
            y = sum(weight * row for weight, (row, _) in zip(weights, steps, strict=True))
            terms.append((x - truths[pixel0][0]) ** 2 + (y - truths[pixel0][1]) ** 2)
    return sum(terms) / len(terms)


VARIANCE, TRUTH = np.array([0.3, 2.0, 1e-3, 0.7]), random(4, 2, scale=2.0)


def written_out_weighted(mean: Array) -> float:
    """LoFTR, section 3.5: fine loss."""
    inverse = [1.0 / math.sqrt(variance) for variance in VARIANCE]
    weights = [value / (sum(inverse) / 4) for value in inverse]
    return sum(w * ((m - t) ** 2).sum() for w, m, t in zip(weights, mean, TRUTH, strict=True)) / 4


def tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array))


CASES = {
    "coarse": (
        random(2, 4, 5, scale=3.0),
        lambda x: coarse_loss(log_dual_softmax(x), tensor(PARTNER)),
        written_out_coarse,
    ),
    "pixels": (random(3, 64, 100, scale=3.0), lambda x: pixel_loss(x, tensor(pixel_targets())), written_out_pixels),
    "fractions": (
        random(3, 64, 100, scale=9.0),
        lambda x: fraction_loss(x, tensor(pixel_targets()), tensor(FRACTION)),
        written_out_fractions,
    ),
    "weighted": (
        random(4, 2),
        lambda x: variance_weighted_loss(x, tensor(VARIANCE), tensor(TRUTH)),
        written_out_weighted,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_loss_and_its_gradient_are_those_written_out(name: str) -> None:
    given, ours, reference = CASES[name]
    x = tensor(given).requires_grad_(True)
    found = ours(x)
    assert found.item() == pytest.approx(reference(given), rel=1e-9)
    (gradient,) = torch.autograd.grad(found, x)
    assert differs_by(reference, given, gradient.numpy()) < 1e-6


def differs_by(function: Callable[[Array], float], given: Array, gradient: Array) -> float:
    """From central differences, relative to the largest slope, for the steepest directions and some at random."""
    order = np.argsort(-np.abs(gradient), axis=None)
    chosen = [*order[:6], *np.random.default_rng(0).permutation(given.size)[:6]]
    errors = []
    for number in chosen:
        step = np.zeros(given.size)
        step[number] = 1e-5
        step = step.reshape(given.shape)
        slope = (function(given + step) - function(given - step)) / 2e-5
        errors.append(abs(slope - gradient.flat[number]))
    return float(max(errors) / np.abs(gradient).max())


def test_without_any_target_losses_are_zero() -> None:
    nothing = torch.full((1, 64), NO_PIXEL)
    assert coarse_loss(torch.zeros(1, 4, 5), torch.full((1, 4), UNMATCHABLE)).item() == 0.0
    assert pixel_loss(torch.zeros(1, 64, 100), nothing).item() == 0.0
    assert fraction_loss(torch.zeros(1, 64, 100), nothing, torch.zeros(1, 64, 2)).item() == 0.0


def test_being_unsure_is_no_way_to_a_smaller_loss() -> None:
    variance = torch.ones(3, requires_grad=True)
    loss = variance_weighted_loss(torch.ones(3, 2, requires_grad=True), variance, torch.zeros(3, 2))
    loss.backward()
    assert variance.grad is None
