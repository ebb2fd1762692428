"""The losses against arithmetic written out with loops, and the network that training begins with."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install feature_matcher_ros[torch]")

from feature_matcher_ros.models.lightglue import Assignment, LightGlueModel  # noqa: E402
from feature_matcher_ros.models.lightglue_config import LightGlueConfig  # noqa: E402
from feature_matcher_ros.training.ground_truth import IGNORED, UNMATCHABLE, Labels  # noqa: E402
from feature_matcher_ros.training.initial_weights import untrained_lightglue  # noqa: E402
from feature_matcher_ros.training.lightglue_loss import (  # noqa: E402
    ConfidenceObjective,
    assignment_loss,
    count_matches,
    run_layers,
)
from feature_matcher_ros.training.match_counts import MatchCounts  # noqa: E402
from feature_matcher_ros.training.pair_batches import PairBatch  # noqa: E402

CONFIG = LightGlueConfig(descriptor_size=16, width=16, heads=2, layers=3, project_input=True)
LABELS = Labels(
    torch.tensor([[2, UNMATCHABLE, IGNORED, 0], [UNMATCHABLE] * 4]),
    torch.tensor([[3, UNMATCHABLE, 0, IGNORED, UNMATCHABLE], [UNMATCHABLE, IGNORED, *[UNMATCHABLE] * 3]]),
)


def random(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(sum(shape)).standard_normal(shape))


def written_out_loss(log_assignment: torch.Tensor, labels: Labels) -> torch.Tensor:
    """Equation 11 of the paper, pair by pair and point by point, of the log assignment with its dustbins."""
    losses = []
    for pairs, partner0, partner1 in zip(
        log_assignment, labels.partner0.tolist(), labels.partner1.tolist(), strict=True
    ):
        matched = [pairs[i, j] for i, j in enumerate(partner0) if j >= 0]
        alone0 = [pairs[i, -1] for i, j in enumerate(partner0) if j == UNMATCHABLE]
        alone1 = [pairs[-1, j] for j, i in enumerate(partner1) if i == UNMATCHABLE]
        means = [sum(values) / len(values) if values else torch.tensor(0.0) for values in (matched, alone0, alone1)]
        losses.append(-(means[0] + 0.5 * means[1] + 0.5 * means[2]))
    return sum(losses) / len(losses)


def test_the_loss_and_its_gradient_are_those_of_the_paper() -> None:
    torch.manual_seed(1)
    head = Assignment(8).float()
    states = [random(2, 4, 8).float().requires_grad_(True), random(2, 5, 8).float().requires_grad_(True)]
    wanted = [*states, *head.parameters()]
    found, expected = assignment_loss(head, *states, LABELS), written_out_loss(head(*states), LABELS)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in zip(torch.autograd.grad(found, wanted), torch.autograd.grad(expected, wanted), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def batch_of_points(num0: int = 7, num1: int = 7) -> PairBatch:
    def unit(count: int) -> torch.Tensor:
        return torch.nn.functional.normalize(random(2, count, 16).float(), dim=-1)

    places = random(2, num0, 2).float(), random(2, num1, 2).float()
    return PairBatch((unit(num0), unit(num1)), places, places, places)


def test_classifiers_learn_whether_the_last_layer_assigns_the_same() -> None:
    model = untrained_lightglue(CONFIG, 0)
    for parameter in model.parameters():
        parameter.data += 0.05 * random(*parameter.shape, 1).squeeze(-1).float()
    batch = batch_of_points()
    losses = ConfidenceObjective(model)(batch)
    with torch.no_grad():
        states = list(run_layers(model, batch))
        last = model.assignment(2, *states[2])
        for layer in range(2):
            now, terms = model.assignment(layer, *states[layer]), []
            for pair in range(2):
                for image, dim in ((0, 1), (1, 0)):
                    confidence = model.confidence(layer, states[layer][image])[pair]
                    matrices = [m[pair, :-1] if image == 0 else m[pair, :, :-1] for m in (now, last)]
                    same = matrices[0].argmax(dim) == matrices[1].argmax(dim)
                    terms += [-math.log(c if is_same else 1 - c) for c, is_same in zip(confidence, same, strict=True)]
            assert losses[layer].item() == pytest.approx(sum(terms) / len(terms), rel=1e-4)
    losses.mean().backward()
    trained = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {"token_confidence"}


def test_the_untrained_network_compares_descriptors() -> None:
    model = untrained_lightglue(CONFIG, 4)
    descriptors = torch.nn.functional.normalize(random(2, 30, 16).float(), dim=-1)
    batch = PairBatch((descriptors[:1], descriptors[1:]), *[(torch.rand(1, 30, 2), torch.rand(1, 30, 2))] * 3)
    with torch.no_grad():
        for layer, states in enumerate(run_layers(model, batch)):
            similarity, *_ = model.log_assignment[str(layer)].compare(*states)
            torch.testing.assert_close(similarity[0], 40.0 * descriptors[0] @ descriptors[1].T, rtol=1e-4, atol=1e-4)


def test_matches_are_counted_against_the_truth() -> None:
    log_assignment = torch.full((1, 5, 6), -9.0)
    for i, j in ((0, 2), (1, 1), (2, 4), (3, 3)):  # right, of an unmatchable point, ignored, wrong
        log_assignment[0, i, j] = -0.1
    labels = Labels(LABELS.partner0[:1], LABELS.partner1[:1])
    assert count_matches(log_assignment, labels) == MatchCounts(correct=1, wrong=2, true=2)
    assert count_matches(log_assignment - 5.0, labels) == MatchCounts(correct=0, wrong=0, true=2)


def test_layers_are_those_of_the_model() -> None:
    torch.manual_seed(0)
    model = LightGlueModel(CONFIG).eval()
    batch = batch_of_points(6, 9)
    with torch.no_grad():
        *_, last = run_layers(model, batch)
        expected = model(*batch.descriptors, *batch.positions)
        torch.testing.assert_close(model.assignment(2, *last), expected)
