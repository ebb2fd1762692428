"""From a folder of photographs to the weights of a matcher."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

from feature_matcher_ros.errors import TrainingError
from feature_matcher_ros.models.checkpoint import read_checkpoint
from feature_matcher_ros.runtimes.manifest import sha256_of
from feature_matcher_ros.training.checkpoints import Origins, checkpoint_in
from feature_matcher_ros.training.config import TrainingConfig
from feature_matcher_ros.training.photographs import find_photographs
from feature_matcher_ros.training.progress import ProgressCallback
from feature_matcher_ros.training.tasks import task_of
from feature_matcher_ros.training.trainer import Trainer, TrainerOptions, fitting, is_first_process, write_weights
from feature_matcher_ros.training.view_store import ViewStore, fingerprint

_LONGEST_WAIT = timedelta(days=1)
Counted = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class TrainingPlaces:
    """Where training reads and writes."""

    output: Path  # checkpoint, metrics and weights
    photographs: Path | None = None  # None: procedural images
    initial: Path | None = None  # weights to begin with; None: from scratch
    views: Path | None = None  # where views are kept, for several runs; None: inside of ``output``


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What came of a training run."""

    weights: Path
    held_back: Sequence[Sequence[Any]]  # the scenes that the network was not trained on


def make_scenes(
    config: TrainingConfig,
    places: TrainingPlaces,
    on_progress: Counted = lambda done, total: None,
    device: str = "cpu",
) -> list[list[Any]]:
    """Make the views that are missing, in parallel processes, and read the views of all scenes.

    What would end the training later does so before: weights to begin with and a checkpoint that do not fit. A GPU as
    ``device`` renders rooms; their images differ from the CPU's by a few grey levels.

    Raises:
        SourceError: there is nothing to train on.
        OutputError: they cannot be written.
        ConfigError, TrainingError, WeightsError: as ``train``.
    """
    photographs = _photographs(places)
    _initial(config, places)
    checkpoint_in(places.output, config, _origins(places, photographs))
    store = ViewStore(places.views or places.output / "views", config.data, task_of(config).view_format, photographs)
    if is_first_process():
        store.prepare(on_progress=on_progress, device=device)
    if distributed.is_initialized():
        distributed.barrier()
    return [store.read(number) for number in range(len(store))]


def train(
    config: TrainingConfig,
    places: TrainingPlaces,
    scenes: Sequence[Sequence[Any]],
    options: TrainerOptions | None = None,
    on_progress: ProgressCallback = lambda progress: None,
) -> Trained:
    """Train both stages on scenes and write the weights.

    Raises:
        WeightsError: the weights to begin with cannot be used.
        OutputError: something cannot be written.
        ConfigError, TrainingError: the run cannot go on where it was interrupted, or has diverged.
    """
    initial, origins = _initial(config, places), _origins(places, _photographs(places))
    trainer = Trainer(config, scenes, places.output, options, on_progress, initial, origins)
    model = trainer.run()
    path = places.output / f"{task_of(config).name}.safetensors"
    if is_first_process():
        write_weights(model, path)
    return Trained(path, trainer.held_back)


def _photographs(places: TrainingPlaces) -> list[Path]:
    return find_photographs(places.photographs) if places.photographs else []


def _origins(places: TrainingPlaces, photographs: Sequence[Path]) -> Origins:
    """What a checkpoint says that a run began with; images by name and size, like the folder of their views."""
    digest = fingerprint([(path.name, path.stat().st_size) for path in photographs])
    images = f"{len(photographs)} images ({digest})" if photographs else "procedural"
    initial = "none" if places.initial is None else f"{places.initial.name} ({sha256_of(places.initial)[:12]})"
    return {"photographs": images, "initial": initial}


def _initial(config: TrainingConfig, places: TrainingPlaces) -> nn.Module | None:
    if places.initial is None:
        return None
    return fitting(task_of(config).from_checkpoint(read_checkpoint(places.initial)), config)


def choose_device(name: str) -> torch.device:
    """The device of that name; ``auto`` takes a GPU if there is one, and under ``torchrun`` that of this process.

    Raises:
        TrainingError: there is no such device.
    """
    if "LOCAL_RANK" in os.environ:
        return _join_torchrun(int(os.environ["LOCAL_RANK"]))
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        cause = str(error).splitlines()[0][:120]
        raise TrainingError(
            f"'{name}' cannot be trained on ({cause}): choose cpu, or cuda on a machine with one."
        ) from error


def _join_torchrun(local_rank: int) -> torch.device:
    """Join the processes that ``torchrun`` started, one for each GPU, or any number on a CPU."""
    has_gpu = torch.cuda.is_available()
    # The others wait while the first one makes the views, which may take longer than the minutes of PyTorch's default.
    distributed.init_process_group("nccl" if has_gpu else "gloo", timeout=_LONGEST_WAIT)
    if not has_gpu:
        return torch.device("cpu")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
