"""Training itself: it learns, it resumes, and it says what goes wrong."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install feature_matcher_ros[torch]")

from safetensors.torch import save_file  # noqa: E402

from feature_matcher_ros.config import FrontEndConfig, MatcherConfig  # noqa: E402
from feature_matcher_ros.errors import (  # noqa: E402
    ConfigError,
    OutputError,
    SourceError,
    TrainingError,
    WeightsError,
)
from feature_matcher_ros.evaluation.threshold_choice import Schedule  # noqa: E402
from feature_matcher_ros.evaluation.threshold_records import agreement  # noqa: E402
from feature_matcher_ros.evaluation.training_curves import read_metrics  # noqa: E402
from feature_matcher_ros.matchers import create_matcher  # noqa: E402
from feature_matcher_ros.matchers.lightglue_graphs import open_lightglue  # noqa: E402
from feature_matcher_ros.models.checkpoint import read_checkpoint  # noqa: E402
from feature_matcher_ros.training.checkpoints import load_checkpoint  # noqa: E402
from feature_matcher_ros.training.config import TrainingConfig, preset, with_settings  # noqa: E402
from feature_matcher_ros.training.held_back_schedule import held_back_schedule  # noqa: E402
from feature_matcher_ros.training.progress import TrainingProgress  # noqa: E402
from feature_matcher_ros.training.train import TrainingPlaces, make_scenes  # noqa: E402
from feature_matcher_ros.training.trainer import Trainer, TrainerOptions, write_weights  # noqa: E402
from feature_matcher_ros.training.view_store import make_views  # noqa: E402
from feature_matcher_ros.training.views import View, best_points  # noqa: E402

SETTINGS = (
    "data.num_scenes=8", "data.views_per_scene=3", "matching.steps=8", "confidence.steps=4", "num_keypoints=48",
    "network.width=32", "network.layers=2", "batch_size=2", "validation_pairs=4",
)  # fmt: skip
OPTIONS = TrainerOptions(report_steps=1, checkpoint_steps=2, validation_steps=100)


@pytest.fixture(scope="module")
def config() -> TrainingConfig:
    return with_settings(preset("smoke"), SETTINGS)


@pytest.fixture(scope="module")
def scenes(config: TrainingConfig) -> list[list[View]]:
    return [make_views(config.data, (), number) for number in range(8)]


class InterruptionError(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize(("stage", "step"), [("matching", 5), ("matching", 8), ("confidence", 3)])
def test_interrupted_training_ends_as_if_it_had_not_been(
    config: TrainingConfig,
    scenes: list[list[View]],
    stage: str,
    step: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    expected = Trainer(config, scenes, tmp_path / "whole", OPTIONS).run().state_dict()

    def interrupt(progress: TrainingProgress) -> None:
        if (progress.stage, progress.step) == (stage, step):
            raise InterruptionError

    with pytest.raises(InterruptionError):
        Trainer(config, scenes, tmp_path / "parts", OPTIONS, interrupt).run()
    steps: list[int] = []
    resumed = Trainer(config, scenes, tmp_path / "parts", OPTIONS, lambda progress: steps.append(progress.step)).run()
    assert steps[0] in (step - 1, step)  # what the last checkpoint had
    for name, tensor in resumed.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert caplog.messages == [f"{tmp_path / 'parts'} goes on after step {steps[0] // 2 * 2} of the stage {stage}"]
    Trainer(config, scenes, tmp_path / "parts", OPTIONS)
    assert "nothing is left to train" in caplog.text


def test_a_checkpoint_is_of_its_recipe_alone(config: TrainingConfig, scenes: list[list[View]], tmp_path: Path) -> None:
    Trainer(with_settings(config, ["matching.steps=2", "confidence.steps=2"]), scenes, tmp_path, OPTIONS).run()
    with pytest.raises(ConfigError, match=r"was trained with matching\.steps = 2, not 8"):
        Trainer(config, scenes, tmp_path, OPTIONS)
    threads = ["matching.steps=2", "confidence.steps=2", "data.extractor.num_threads=3"]
    Trainer(with_settings(config, threads), scenes, tmp_path, OPTIONS)  # the outcome would be the same
    begun = dict(zip(("photographs", "initial"), ("4 images (ab)", "none"), strict=True))
    short = with_settings(config, threads)
    Trainer(short, scenes, tmp_path / "mine", OPTIONS, origins=begun).run()
    with pytest.raises(ConfigError, match=r"was trained with photographs = 4 images \(ab\), not procedural"):
        Trainer(short, scenes, tmp_path / "mine", OPTIONS, origins=begun | {"photographs": "procedural"})
    path = tmp_path / "checkpoint.pth"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(TrainingError, match=r"damaged .*delete it"):
        Trainer(config, scenes, tmp_path, OPTIONS)


def test_the_old_checkpoint_survives_a_full_disk(
    config: TrainingConfig, scenes: list[list[View]], tmp_path: Path
) -> None:
    def fill_disk(progress: TrainingProgress) -> None:
        if progress.step == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # else a write beyond the limit ends the process
    try:
        with pytest.raises(OutputError, match="the last one is intact"):
            Trainer(config, scenes, tmp_path, OPTIONS, fill_disk).run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert load_checkpoint(tmp_path / "checkpoint.pth", config, {}).step == 2
    assert not list(tmp_path.glob("*.unfinished"))


def test_weights_that_the_disk_does_not_hold_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()  # in the place of the file
    with pytest.raises(OutputError, match="cannot write the weights"):
        write_weights(torch.nn.Linear(2, 2), tmp_path / "weights")


def test_what_ends_a_training_is_said_before_views_are_made(config: TrainingConfig, tmp_path: Path) -> None:
    save_file({"posenc.Wr.weight": torch.zeros(1, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="not one of LightGlue"):
        make_scenes(config, TrainingPlaces(tmp_path / "run", initial=tmp_path / "other.safetensors"))
    assert not (tmp_path / "run").exists()


def test_the_curves_are_those_of_the_run_that_went_on(tmp_path: Path) -> None:
    lines = [{"stage": "matching", "step": step, "losses": [loss]} for step, loss in ((1, 9), (20, 8), (40, 7))]
    again = [{"stage": "matching", "step": step, "losses": [loss]} for step, loss in ((20, 6), (40, 5))]
    text = "\n".join(map(json.dumps, lines)) + '\n{"stage": "mat\n' + "\n".join(map(json.dumps, again))
    (tmp_path / "metrics.jsonl").write_text(text)
    kept = read_metrics(tmp_path / "metrics.jsonl")
    assert [(line["step"], line["losses"]) for line in kept] == [(1, [9]), (20, [6]), (40, [5])]


def test_diverged_training_stops_and_names_the_batch(
    config: TrainingConfig, scenes: list[list[View]], tmp_path: Path
) -> None:
    wild = with_settings(config, ["matching.learning_rate=1e18", "matching.warmup_steps=1"])
    with pytest.raises(
        TrainingError, match=r"at step \d of the stage matching, with the batch of seed \(0, 0, 0, \d\)"
    ):
        Trainer(wild, scenes, tmp_path, OPTIONS).run()


def test_scenes_without_enough_points_are_an_error(
    config: TrainingConfig, scenes: list[list[View]], tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match="two views with 5000 points"):
        Trainer(replace(config, num_keypoints=5000), scenes, tmp_path, OPTIONS)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("matching.step=3", "there is no 'step'"),
        ("matching=3", "is no single value"),
        ("matching.steps=many", "not of type int"),
        ("steps", "sets nothing"),
        ("batch_size=0", "batch_size = 0 is out of range"),
        ("ema_decay=nan", "ema_decay = nan is out of range"),
        ("network.heads=3", "divides 32"),
        ("network.adaptive=false", "every layer of LightGlue learns"),
        ("data.extractor.max_keypoints=-5", "out of range"),
    ],
)
def test_wrong_settings_are_explained(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_settings(preset("smoke"), [setting])


def test_a_truth_value_of_the_recipe_can_be_switched_off() -> None:
    assert not with_settings(preset("smoke"), ["network.scale_orientation=false"]).network.scale_orientation


def test_confidence_cannot_be_trained_where_there_is_none() -> None:
    with pytest.raises(ConfigError, match="trains what this network has not"):
        with_settings(preset("loftr"), ["confidence.steps=5"])


def test_an_unknown_preset_is_an_error() -> None:
    with pytest.raises(ConfigError, match="choose from sift, efficient_loftr, loftr, smoke"):
        preset("huge")


@pytest.mark.slow
def test_the_smoke_preset_learns_and_yields_a_matcher(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "feature_matcher_ros.cli", "train", "--preset", "smoke", "-o", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    matching = [line for line in lines if line["stage"] == "matching"]
    losses = [sum(line["losses"]) for line in matching if line["losses"]]
    assert losses[-1] < 0.7 * losses[0]
    start, end = matching[0], matching[-1]
    assert all(after > before + 0.03 for before, after in zip(start["recall"], end["recall"], strict=True))
    confidence = [line["losses"] for line in lines if line["stage"] == "confidence" and line["losses"]]
    assert sum(confidence[-1]) < sum(confidence[0])
    assert len(read_checkpoint(tmp_path / "lightglue_sift.safetensors")) > 20
    graphs = open_lightglue(tmp_path / "graphs")
    assert len(graphs.confidence_thresholds) == len(graphs.matchability_thresholds) == graphs.config.layers == 3
    schedule = held_back_schedule(tmp_path / "graphs", smoke_scenes(1000), wanted_agreement=0.8)
    layers_run, mean_agreement = stop_early(tmp_path / "graphs", schedule, smoke_scenes(2000))
    assert layers_run < 3.0 and mean_agreement > 0.78


def smoke_scenes(first: int) -> list[list[View]]:
    return [make_views(preset("smoke").data, (), number) for number in range(first, first + 12)]


def stop_early(graphs: Path, schedule: Schedule, scenes: list[list[View]]) -> tuple[float, float]:
    """Layers run, and the share of all layers' matches found with these thresholds; means over a pair of each scene."""
    patient = MatcherConfig("lightglue", graphs=str(graphs), depth_confidence=1.0, width_confidence=1.0)
    hasty = replace(
        MatcherConfig("lightglue", graphs=str(graphs)),
        confidence_thresholds=schedule.thresholds,
        matchability_thresholds=schedule.matchability_thresholds,
    )
    matchers = [create_matcher(FrontEndConfig(matcher=config)) for config in (patient, hasty)]
    layers_run, agreements = [], []
    for views in scenes:
        pair = best_points(views[0]).features, best_points(views[1]).features
        late, early = (matcher.match(*pair) for matcher in matchers)
        layers_run.append(early.layers_run)
        agreements.append(agreement(early.indices, late.indices))
    return float(np.mean(layers_run)), float(np.mean(agreements))
