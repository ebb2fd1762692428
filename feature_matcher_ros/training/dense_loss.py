"""What a detector-free network learns from a pair (arXiv 2104.00680, section 3.5; 2403.04765, section 3.5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_matcher_ros.models.dense_config import CELL_PX
from feature_matcher_ros.models.dense_network import CellPairs, Pair
from feature_matcher_ros.models.efficient_loftr import EfficientLoftr
from feature_matcher_ros.models.efficient_loftr_refinement import (
    expected_fractions,
    log_window_probabilities,
    window_similarities,
)
from feature_matcher_ros.training.dense_batches import DenseBatch
from feature_matcher_ros.training.dense_ground_truth import NO_PIXEL
from feature_matcher_ros.training.ground_truth import UNMATCHABLE
from feature_matcher_ros.training.match_counts import MatchCounts

_FOCAL_GAIN, _FOCAL_POWER = 0.25, 2.0
_MIN_SCORE = 0.2  # of a match that counts as one
_NEAR_PX = 1.5 * CELL_PX  # a match this close to the truth but of a neighbouring cell is neither right nor wrong
_PIXEL_WEIGHT, _FRACTION_WEIGHT = 1.0, 0.25


def coarse_loss(logits: Tensor, partner: Tensor) -> Tensor:
    """Focal negative log probability of the true pairs of cells, mean over all of these.

    ``logits`` (B, L, S) are the similarities whose dual softmax is the probability; ``partner`` (B, L) holds a cell of
    image 1, or something negative. 0 where no cell has a partner.
    """
    pair, cell0 = torch.nonzero(partner >= 0, as_tuple=True)
    cell1 = partner[pair, cell0]
    rows, columns = logits.logsumexp(dim=2), logits.logsumexp(dim=1)
    log_score = 2.0 * logits[pair, cell0, cell1] - rows[pair, cell0] - columns[pair, cell1]
    return (focal(log_score)).sum() / max(1, len(pair))


def focal(log_probability: Tensor) -> Tensor:
    """Negative log probability, less of what is nearly certain already (arXiv 1708.02002, eq. 5)."""
    return -_FOCAL_GAIN * (1.0 - log_probability.exp()) ** _FOCAL_POWER * log_probability


def pixel_loss(similarities: Tensor, pixel1: Tensor) -> Tensor:
    """Negative log probability of the true pairs of pixels of windows, mean over all of these.

    ``similarities`` are (M, 64, 100), ``pixel1`` (M, 64).
    """
    window, pixel0 = torch.nonzero(pixel1 != NO_PIXEL, as_tuple=True)
    chosen = log_window_probabilities(similarities)[window, pixel0, pixel1[window, pixel0]]
    return -chosen.sum() / max(1, len(window))


def fraction_loss(similarities: Tensor, pixel1: Tensor, fraction: Tensor) -> Tensor:
    """Squared distance in px^2 of the expected from the true fraction, mean over the true pairs of pixels.

    ``similarities`` are (M, 64, 100), ``pixel1`` (M, 64), ``fraction`` (M, 64, 2).
    """
    window, pixel0 = torch.nonzero(pixel1 != NO_PIXEL, as_tuple=True)
    found = expected_fractions(similarities, window, pixel0, pixel1[window, pixel0])
    return (found - fraction[window, pixel0]).square().sum() / max(1, len(window))


def variance_weighted_loss(mean: Tensor, variance: Tensor, truth: Tensor) -> Tensor:
    """LoFTR's fine loss: squared distance of places (M, 2), weighted by the inverse standard deviation.

    The weights (from ``variance`` (M,)) have mean 1 and are taken for constants, lest the network learns to be unsure.
    """
    inverse = variance.detach().clamp(min=1e-10).rsqrt()
    weight = inverse / inverse.mean()
    return (weight * (mean - truth).square().sum(dim=1)).sum() / max(1, len(mean))


def run_rounds(model: EfficientLoftr, batch: DenseBatch) -> tuple[dict[str, Tensor], list[Pair]]:
    """What the backbone finds in all images, those of image 1 after those of image 0, and states after each round."""
    images = torch.cat((batch.image0, batch.image1))
    size = [side // CELL_PX for side in images.shape[2:]]
    cells = images.new_ones(len(images), 1, *size)
    encoded = model.encode(images, cells)
    half = cells.chunk(2)
    state0, state1 = encoded["state"].chunk(2)
    states = []
    for number in range(model.config.rounds):
        state0, state1 = model.round(number, state0, state1, *half)
        states.append((state0, state1))
    return encoded, states


def round_logits(model: EfficientLoftr, states: Pair) -> Tensor:
    """Similarities (B, L, S) of all cells, in single precision as probabilities want it."""
    with torch.autocast(states[0].device.type, enabled=False):
        ones = [torch.ones_like(state[:, :1], dtype=torch.float32) for state in states]
        return model.logits(states[0].float(), states[1].float(), ones[0], ones[1])


class DenseMatchingObjective(nn.Module):
    """First stage: cells from every round, and the pixels of some of them."""

    def __init__(self, model: EfficientLoftr) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: DenseBatch) -> Tensor:
        """Losses (rounds + 2,): of the cells after each round, of pixels, and of fractions of these."""
        encoded, states = run_rounds(self.model, batch)
        losses = [coarse_loss(round_logits(self.model, pair), batch.partner) for pair in states]
        first, second = self._window_similarities(encoded, states, batch)
        losses.append(pixel_loss(first, batch.pixel1))
        losses.append(fraction_loss(second, batch.pixel1, batch.fraction))
        return torch.stack(losses)

    def _window_similarities(self, encoded: dict[str, Tensor], states: list[Pair], batch: DenseBatch) -> Pair:
        """Pairs with windows are refined after different rounds, as all of them may be the last to be run."""
        count = (len(batch.image0) + 1) // 2
        rounds = [-1 - index % len(states) for index in range(count)]
        chosen = [torch.stack([states[number][side][index] for index, number in enumerate(rounds)]) for side in (0, 1)]
        parts = [torch.cat([encoded[name].chunk(2)[side][:count] for side in (0, 1)]) for name in ("map2", "map4")]
        found = self.model.fine_map({"map2": parts[0], "map4": parts[1]}, torch.cat(chosen))
        with torch.autocast(found.device.type, enabled=False):
            maps = found.float().chunk(2)
            return window_similarities((maps[0], maps[1]), CellPairs(batch.window_pair, batch.cell0, batch.cell1))


def weighted_sum(losses: Tensor) -> Tensor:
    """What the first stage minimises: the mean over the rounds, and the losses of refinement."""
    return losses[:-2].mean() + _PIXEL_WEIGHT * losses[-2] + _FRACTION_WEIGHT * losses[-1]


class DenseConfidenceObjective(nn.Module):
    """Second stage: is what a round decides of a cell what the last one decides? All but the classifiers is frozen."""

    def __init__(self, model: EfficientLoftr) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: DenseBatch) -> Tensor:
        """Binary cross entropies (rounds - 1,)."""
        with torch.no_grad():
            _, states = run_rounds(self.model, batch)
            decided = [_decided(round_logits(self.model, pair)) for pair in states]
        losses = []
        for number, pair in enumerate(states[:-1]):
            confidence = torch.cat([self.model.confidence(number, state).flatten(1) for state in pair], dim=1)
            is_final = (decided[number] == decided[-1]).float()
            losses.append(functional.binary_cross_entropy(confidence.float(), is_final))
        return torch.stack(losses)


def mutual_matches(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Partners (B, L) and (B, S) of cells that are mutually best and score enough; -1 where there is none."""
    log_scores = 2.0 * logits - logits.logsumexp(dim=1, keepdim=True) - logits.logsumexp(dim=2, keepdim=True)
    return _mutual(log_scores), _mutual(log_scores.mT)


def _mutual(log_scores: Tensor) -> Tensor:
    score, best = log_scores.max(dim=2)
    returned = log_scores.argmax(dim=1).gather(1, best)
    is_match = (returned == torch.arange(best.shape[1], device=best.device)) & (score.exp() >= _MIN_SCORE)
    return torch.where(is_match, best, -1)


def _decided(logits: Tensor) -> Tensor:
    return torch.cat(mutual_matches(logits), dim=1)


def count_cells(logits: Tensor, batch: DenseBatch) -> MatchCounts:
    """Matches of cells against the truth; one of a neighbour of the true cell is left out."""
    found, _ = mutual_matches(logits)
    columns = batch.image0.shape[3] // CELL_PX
    places = CELL_PX * torch.stack((found % columns, found // columns), dim=-1)
    distance = torch.linalg.vector_norm(places - batch.place, dim=-1)  # NaN where the truth is not known
    is_correct = (found >= 0) & (found == batch.partner)
    is_far = (distance > _NEAR_PX) | (batch.partner == UNMATCHABLE)
    is_wrong = (found >= 0) & is_far & ~is_correct
    return MatchCounts(int(is_correct.sum()), int(is_wrong.sum()), int((batch.partner >= 0).sum()))
