"""What a detector-free network learns of cells (arXiv 2104.00680, section 3.5; 2403.04765, section 3.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_matcher_ros.models.dense_config import CELL_PX
from feature_matcher_ros.models.dense_network import EncodedPair, Pair
from feature_matcher_ros.models.dense_stages import AnyDenseNetwork
from feature_matcher_ros.training.dense_batches import DenseBatch, DenseBatches
from feature_matcher_ros.training.ground_truth import UNMATCHABLE
from feature_matcher_ros.training.match_counts import MatchCounts
from feature_matcher_ros.training.refinement_loss import Refinement

_FOCAL_GAIN, _FOCAL_POWER = 0.25, 2.0
_MIN_SCORE = 0.2  # of a match that counts as one
_NEAR_PX = 1.5 * CELL_PX  # a match this close to the truth but of a neighbouring cell is neither right nor wrong


def coarse_loss(log_scores: Tensor, partner: Tensor) -> Tensor:
    """Focal negative log probability of the true pairs of cells, mean over all of these.

    ``log_scores`` are (B, L, S); ``partner`` (B, L) holds a cell of image 1, or something negative. 0 where no cell has
    a partner.
    """
    pair, cell0 = torch.nonzero(partner >= 0, as_tuple=True)
    return focal(log_scores[pair, cell0, partner[pair, cell0]]).sum() / max(1, len(pair))


def focal(log_probability: Tensor) -> Tensor:
    """Negative log probability, less of what is nearly certain already (arXiv 1708.02002, eq. 5)."""
    return -_FOCAL_GAIN * (1.0 - log_probability.exp()) ** _FOCAL_POWER * log_probability


def run_rounds(model: AnyDenseNetwork, batch: DenseBatch) -> tuple[dict[str, Tensor], list[Pair]]:
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


def round_scores(model: AnyDenseNetwork, states: Pair) -> Tensor:
    """Log probabilities (B, L, S) that two cells match, in single precision."""
    with torch.autocast(states[0].device.type, enabled=False):
        ones = [torch.ones_like(state[:, :1], dtype=torch.float32) for state in states]
        return model.log_scores(states[0].float(), states[1].float(), ones[0], ones[1])


class DenseMatchingObjective(nn.Module):
    """First stage: cells from every round, and where the points lie in some of them."""

    def __init__(self, model: AnyDenseNetwork, refinement: Refinement) -> None:
        super().__init__()
        self.model, self.refinement = model, refinement

    def forward(self, batch: DenseBatch) -> Tensor:
        """Losses (rounds + n,): of the cells after each round, and of refinement."""
        encoded, states = run_rounds(self.model, batch)
        losses = [coarse_loss(round_scores(self.model, pair), batch.partner) for pair in states]
        return torch.stack([*losses, *self.refinement(*_refined_pairs(encoded, states, batch), batch)])


def _refined_pairs(
    encoded: Mapping[str, Tensor], states: Sequence[Pair], batch: DenseBatch
) -> tuple[EncodedPair, Pair]:
    """Maps and states of the pairs with windows, each after another round, as any of these may be the last to run."""
    count = DenseBatches.num_refined(len(batch.image0))
    numbers = [-1 - index % len(states) for index in range(count)]
    chosen = [torch.stack([states[number][side][index] for index, number in enumerate(numbers)]) for side in (0, 1)]
    maps = [{name: features.chunk(2)[side][:count] for name, features in encoded.items()} for side in (0, 1)]
    return (maps[0], maps[1]), (chosen[0], chosen[1])


class DenseConfidenceObjective(nn.Module):
    """Second stage: is what a round decides of a cell what the last one decides? All but the classifiers is frozen."""

    def __init__(self, model: AnyDenseNetwork) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: DenseBatch) -> Tensor:
        """Binary cross entropies (rounds - 1,)."""
        with torch.no_grad():
            _, states = run_rounds(self.model, batch)
            decided = [torch.cat(mutual_matches(round_scores(self.model, pair)), dim=1) for pair in states]
        losses = []
        for number, pair in enumerate(states[:-1]):
            confidence = torch.cat([self.model.confidence(number, state).flatten(1) for state in pair], dim=1)
            is_final = (decided[number] == decided[-1]).float()
            losses.append(functional.binary_cross_entropy(confidence.float(), is_final))
        return torch.stack(losses)


def mutual_matches(log_scores: Tensor) -> Pair:
    """Partners (B, L) and (B, S) of cells that are mutually best and score enough; -1 where there is none."""
    return _mutual(log_scores), _mutual(log_scores.mT)


def _mutual(log_scores: Tensor) -> Tensor:
    score, best = log_scores.max(dim=2)
    returned = log_scores.argmax(dim=1).gather(1, best)
    is_match = (returned == torch.arange(best.shape[1], device=best.device)) & (score.exp() >= _MIN_SCORE)
    return torch.where(is_match, best, -1)


def count_cells(log_scores: Tensor, batch: DenseBatch) -> MatchCounts:
    """Matches of cells against the truth; one of a neighbour of the true cell is left out."""
    found, _ = mutual_matches(log_scores)
    columns = batch.image0.shape[3] // CELL_PX
    places = CELL_PX * torch.stack((found % columns, found // columns), dim=-1)
    distance = torch.linalg.vector_norm(places - batch.place, dim=-1)  # NaN where the truth is not known
    is_correct = (found >= 0) & (found == batch.partner)
    is_far = (distance > _NEAR_PX) | (batch.partner == UNMATCHABLE)
    is_wrong = (found >= 0) & is_far & ~is_correct
    return MatchCounts(int(is_correct.sum()), int(is_wrong.sum()), int((batch.partner >= 0).sum()))
