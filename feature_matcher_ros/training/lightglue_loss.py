"""What a LightGlue network learns from a pair: the loss of every layer, and that of the confidence classifiers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_matcher_ros.models.lightglue import Assignment, LightGlueModel
from feature_matcher_ros.training.ground_truth import UNMATCHABLE, Labels, label_pairs
from feature_matcher_ros.training.match_counts import MatchCounts
from feature_matcher_ros.training.pair_batches import PairBatch

_MIN_SCORE = 0.1  # a match that counts as one has more


def run_layers(model: LightGlueModel, batch: PairBatch) -> Iterator[tuple[Tensor, Tensor]]:
    """The states (B, N, width) of both images after each layer."""
    (state0, rotation0), (state1, rotation1) = (
        model.embed(descriptors, positions)
        for descriptors, positions in zip(batch.descriptors, batch.positions, strict=True)
    )
    for layer in range(model.config.layers):
        state0, state1 = model.layer(layer, state0, state1, rotation0, rotation1)
        yield state0, state1


class MatchingObjective(nn.Module):
    """First stage: correspondences, from every layer (paper, eq. 11)."""

    def __init__(self, model: LightGlueModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: PairBatch) -> Tensor:
        """Losses (layers,); their mean is what is minimised."""
        labels = label_pairs(*batch.keypoints, *batch.projected)
        return torch.stack(
            [
                assignment_loss(self.model.log_assignment[str(layer)], *states, labels)
                for layer, states in enumerate(run_layers(self.model, batch))
            ]
        )


class ConfidenceObjective(nn.Module):
    """Second stage: does what a layer assigns equal what the last one does? All but the classifiers is frozen."""

    def __init__(self, model: LightGlueModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: PairBatch) -> Tensor:
        """Binary cross entropies (layers - 1,)."""
        with torch.no_grad():
            states = list(run_layers(self.model, batch))
            assigned = [_assigned(self.model, layer, pair) for layer, pair in enumerate(states)]
        losses = []
        for layer, pair in enumerate(states[:-1]):
            confidence = torch.cat([self.model.confidence(layer, state) for state in pair], dim=1)
            is_final = (assigned[layer] == assigned[-1]).float()
            losses.append(functional.binary_cross_entropy(confidence.float(), is_final))
        return torch.stack(losses)


def assignment_loss(head: Assignment, state0: Tensor, state1: Tensor, labels: Labels) -> Tensor:
    """Negative log probability of the true matches, and half of that of either image's unmatchable points.

    Each is a mean over the points of a pair, then over the pairs. The log assignment is computed where it is needed.
    """
    with torch.autocast(state0.device.type, enabled=False):  # probabilities want single precision
        similarity, logits0, logits1 = head.compare(state0.float(), state1.float())
    partner0 = labels.partner0.clamp(min=0)
    row, column = similarity.logsumexp(dim=2), similarity.logsumexp(dim=1)
    of_pair = 2.0 * similarity.gather(2, partner0[:, :, None]).squeeze(2) - row - column.gather(1, partner0)
    of_pair = of_pair + functional.logsigmoid(logits0) + functional.logsigmoid(logits1).gather(1, partner0)
    unmatchable = (
        _mean_where(functional.logsigmoid(-logits), partner == UNMATCHABLE)
        for logits, partner in ((logits0, labels.partner0), (logits1, labels.partner1))
    )
    return -(_mean_where(of_pair, labels.is_matched0) + 0.5 * sum(unmatchable, torch.zeros_like(row[:, 0]))).mean()


def _mean_where(values: Tensor, where: Tensor) -> Tensor:
    """Means (B,) over the chosen values (B, N); 0 where none is chosen."""
    return (values * where).sum(dim=1) / where.sum(dim=1).clamp(min=1)


def _assigned(model: LightGlueModel, layer: int, states: tuple[Tensor, Tensor]) -> Tensor:
    """For the points of both images (B, N0 + N1) the number of the likeliest partner, the last one meaning none."""
    pairs = model.assignment(layer, *states)
    return torch.cat((pairs[:, :-1].argmax(dim=2), pairs[:, :, :-1].argmax(dim=1)), dim=1)


def count_matches(log_assignment: Tensor, labels: Labels) -> MatchCounts:
    """Mutually best pairs above a score, of a batch (B, N0 + 1, N1 + 1), against the truth."""
    pairs = log_assignment[:, :-1, :-1]
    score, best = pairs.max(dim=2)
    returned = pairs.argmax(dim=1).gather(1, best)
    is_match = (returned == torch.arange(best.shape[1], device=best.device)) & (score.exp() > _MIN_SCORE)
    is_correct = is_match & (best == labels.partner0)
    is_judged = labels.is_matched0 | (labels.partner0 == UNMATCHABLE)
    is_wrong = is_match & is_judged & ~is_correct
    return MatchCounts(int(is_correct.sum()), int(is_wrong.sum()), int(labels.is_matched0.sum()))
