"""Training of a detector-free network: where it begins, that it learns, and that it can be interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install feature_matcher_ros[torch]")

from feature_matcher_ros.config import FrontEndConfig, MatcherConfig  # noqa: E402
from feature_matcher_ros.errors import SourceError, WeightsError  # noqa: E402
from feature_matcher_ros.export.from_checkpoint import export_checkpoint  # noqa: E402
from feature_matcher_ros.matchers import create_matcher  # noqa: E402
from feature_matcher_ros.models.checkpoint import read_checkpoint  # noqa: E402
from feature_matcher_ros.models.dense_config import EfficientLoftrConfig, LoftrConfig  # noqa: E402
from feature_matcher_ros.models.efficient_loftr import efficient_loftr_from_checkpoint  # noqa: E402
from feature_matcher_ros.training.config import DataConfig, StageConfig, TrainingConfig, preset  # noqa: E402
from feature_matcher_ros.training.dense_batches import DenseBatch  # noqa: E402
from feature_matcher_ros.training.dense_loss import (  # noqa: E402
    DenseConfidenceObjective,
    count_cells,
    mutual_matches,
    round_scores,
    run_rounds,
)
from feature_matcher_ros.training.dense_views import DenseView  # noqa: E402
from feature_matcher_ros.training.ground_truth import IGNORED, UNMATCHABLE  # noqa: E402
from feature_matcher_ros.training.held_back_schedule import held_back_schedule  # noqa: E402
from feature_matcher_ros.training.match_counts import MatchCounts  # noqa: E402
from feature_matcher_ros.training.photographs import procedural_photograph  # noqa: E402
from feature_matcher_ros.training.progress import TrainingProgress  # noqa: E402
from feature_matcher_ros.training.refinement_loss import true_offsets  # noqa: E402
from feature_matcher_ros.training.tasks import task_of  # noqa: E402
from feature_matcher_ros.training.train import TrainingPlaces, train  # noqa: E402
from feature_matcher_ros.training.trainer import Trainer, TrainerOptions  # noqa: E402
from feature_matcher_ros.training.view_store import make_dense_views  # noqa: E402

NETWORK = EfficientLoftrConfig(widths=(32, 32, 64), blocks=(1, 1, 2), heads=2, rounds=2, has_confidence=True)
CONFIG = replace(
    preset("efficient_loftr"),
    data=DataConfig(None, (128, 96), num_scenes=12, rendered_share=0.0, views_per_scene=4),
    network=NETWORK,
    matching=StageConfig(6, 2e-3, 2),
    confidence=StageConfig(4, 1e-2, 2),
    num_keypoints=12,
    batch_size=2,
    ema_decay=0.9,
    validation_share=0.2,
    validation_pairs=12,
)
OPTIONS = TrainerOptions(report_steps=1, checkpoint_steps=2, validation_steps=100)


@pytest.fixture(autouse=True)
def _single_thread() -> Iterator[None]:
    """Several threads are slower for so small a network, and their number would decide how sums are rounded."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def scenes() -> list[list[DenseView]]:
    return [make_dense_views(CONFIG.data, (), number) for number in range(CONFIG.data.num_scenes)]


class InterruptionError(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize(("stage", "step"), [("matching", 5), ("confidence", 3)])
def test_interrupted_training_ends_as_if_it_had_not_been(
    scenes: list[list[DenseView]], stage: str, step: int, tmp_path: Path
) -> None:
    expected = Trainer(CONFIG, scenes, tmp_path / "whole", OPTIONS).run().state_dict()

    def interrupt(progress: TrainingProgress) -> None:
        if (progress.stage, progress.step) == (stage, step):
            raise InterruptionError

    with pytest.raises(InterruptionError):
        Trainer(CONFIG, scenes, tmp_path / "parts", OPTIONS, interrupt).run()
    resumed = Trainer(CONFIG, scenes, tmp_path / "parts", OPTIONS).run().state_dict()
    assert any(name.endswith("running_var") for name in expected)
    for name, tensor in resumed.items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.slow
def test_it_learns_and_its_weights_can_be_loaded(scenes: list[list[DenseView]], tmp_path: Path) -> None:
    config = replace(CONFIG, matching=StageConfig(200, 2e-3, 5), confidence=StageConfig(25, 1e-2, 2))
    reports: list[TrainingProgress] = []
    trained = train(config, TrainingPlaces(tmp_path), scenes, OPTIONS, reports.append)
    matching = [report for report in reports if report.stage == "matching"]
    losses = torch.tensor([report.losses for report in matching[1:]])
    start, end = losses[:10].mean(dim=0), losses[-20:].mean(dim=0)
    assert (end[:2] < 0.65 * start[:2]).all() and end[2] < 0.9 * start[2], (start, end)
    before, after = matching[0].layers[-1], matching[-1].layers[-1]
    assert after.recall > before.recall + 0.01 and after.precision > before.precision
    confidence = [report.loss for report in reports if report.stage == "confidence" and report.losses]
    assert sum(confidence[-3:]) < 0.9 * sum(confidence[:3])
    network = efficient_loftr_from_checkpoint(read_checkpoint(trained.weights))
    assert network.config == NETWORK
    assert finds_shifted_points(trained.weights, tmp_path / "graphs")
    thresholds = held_back_schedule(tmp_path / "graphs", trained.held_back).thresholds
    assert 0.0 < thresholds[0] < 1.0 and thresholds[1] == 1.0
    again = Trainer(config, scenes, tmp_path / "again", OPTIONS, initial=network)
    assert again.validate()[-1].recall == pytest.approx(after.recall, abs=0.02)


def finds_shifted_points(weights: Path, graphs: Path) -> bool:
    """Whether the exported network sees where an image is that was moved by whole cells."""
    export_checkpoint(weights, graphs, "none")
    config = MatcherConfig("efficient_loftr", graphs=str(graphs), min_score=0.01, num_threads=1)
    matcher = create_matcher(FrontEndConfig(matcher=config))
    image = procedural_photograph(77, (160, 128))
    moved = matcher.match(matcher.extract(image[:96, :128]), matcher.extract(image[8:104, 16:144]))
    errors = np.linalg.norm(moved.points1 - moved.points0 + (16.0, 8.0), axis=1)
    return len(errors) > 10 and float(np.median(errors)) < 6.0


def batch_of(scenes: list[list[DenseView]]) -> DenseBatch:
    batch: DenseBatch = task_of(CONFIG).batches(scenes, 1, (5,))[0]
    return batch


def test_the_untrained_network_matches_better_than_chance(scenes: list[list[DenseView]]) -> None:
    task = task_of(CONFIG)
    model = task.untrained().eval()
    with torch.inference_mode():
        batches = [task.batches(scenes, 9, (1,))[number] for number in range(9)]
        found = hits = 0
        for batch in batches:
            _, states = run_rounds(model, batch)
            torch.testing.assert_close(states[0], states[1])  # no round changes anything yet
            best = round_scores(model, states[-1]).argmax(dim=2)
            hits += int((best == batch.partner).sum())
            found += int((batch.partner >= 0).sum())
    assert hits / found > 10 / 192  # ten times what guessing finds


def test_classifiers_learn_whether_the_last_round_decides_the_same(scenes: list[list[DenseView]]) -> None:
    torch.manual_seed(0)
    model = task_of(CONFIG).untrained().eval()
    for layer in model.loftr_coarse.layers:
        torch.nn.init.normal_(layer.norm2.weight, std=0.5)
    batch = batch_of(scenes)
    (loss,) = DenseConfidenceObjective(model)(batch)
    with torch.no_grad():
        _, states = run_rounds(model, batch)
        decided = [mutual_matches(round_scores(model, pair)) for pair in states]
        terms = []
        for side in (0, 1):
            confidence = model.confidence(0, states[0][side]).flatten(1)
            is_final = decided[0][side] == decided[1][side]
            terms += torch.where(is_final, confidence, 1.0 - confidence).log().flatten().tolist()
        assert 0.0 < float(is_final.float().mean()) < 1.0
    assert loss.item() == pytest.approx(-sum(terms) / len(terms), rel=1e-4)
    loss.backward()
    trained = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {"token_confidence"}


def test_matches_are_counted_against_the_truth() -> None:
    """Three by two cells: right, off by one cell, off by two, of a cell that the other image does not show."""
    log_scores = torch.full((1, 6, 6), -20.0)
    for cell0, cell1 in ((0, 0), (1, 2), (2, 5), (3, 3), (4, 4)):
        log_scores[0, cell0, cell1] = -0.1
    partner = torch.tensor([[0, 1, 0, UNMATCHABLE, IGNORED, IGNORED]])
    place = torch.tensor([[[1.0, 1.0], [8.0, 1.0], [0.0, 2.0], [torch.inf] * 2, [torch.nan] * 2, [torch.nan] * 2]])
    nothing = torch.zeros(0)
    batch = DenseBatch(torch.zeros(1, 1, 16, 24), nothing, partner, place, *[nothing] * 5)
    assert count_cells(log_scores, batch) == MatchCounts(correct=1, wrong=2, true=3)


LOFTR = replace(CONFIG, network=LoftrConfig((16, 24, 32), 1, 1, rounds=2), confidence=StageConfig(0, 0.0))


def test_loftr_is_trained_by_cells_and_expected_points(scenes: list[list[DenseView]], tmp_path: Path) -> None:
    before = [parameter.clone() for parameter in task_of(LOFTR).untrained().parameters()]
    trainer = Trainer(LOFTR, scenes, tmp_path, OPTIONS)
    after = list(trainer.run().parameters())
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_points_to_expect_lie_within_their_cells(scenes: list[list[DenseView]]) -> None:
    """From the place of a cell to where that of its partner is seen."""
    batch = batch_of(scenes)
    offsets = true_offsets(batch)
    assert len(offsets) > 5
    for number, pair in enumerate(batch.window_pair.tolist()):
        cell0, cell1 = int(batch.cell0[number]), int(batch.cell1[number])
        place = torch.tensor((cell1 % 16 * 8.0, cell1 // 16 * 8.0))
        torch.testing.assert_close(place + offsets[number], batch.place[pair, cell0])
    assert offsets.abs().max() <= 4.0


def test_scenes_of_single_views_are_an_error(scenes: list[list[DenseView]], tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="two views"):
        Trainer(CONFIG, [views[:1] for views in scenes], tmp_path, OPTIONS)


def test_weights_of_another_shape_are_no_beginning(scenes: list[list[DenseView]], tmp_path: Path) -> None:
    other = task_of(replace(CONFIG, network=replace(NETWORK, rounds=1))).untrained()
    with pytest.raises(WeightsError, match="choose the preset"):
        Trainer(CONFIG, scenes, tmp_path, OPTIONS, initial=other)


def test_the_preset_is_compact() -> None:
    config: TrainingConfig = preset("efficient_loftr")
    assert sum(parameter.numel() for parameter in task_of(config).untrained().parameters()) < 6_000_000
