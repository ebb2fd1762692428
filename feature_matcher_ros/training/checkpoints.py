"""The state of a training run on disk; a new one replaces the old one only once it is complete."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from feature_matcher_ros.errors import ConfigError, OutputError, TrainingError
from feature_matcher_ros.training.config import TrainingConfig, recipe_of


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """All that training needs to go on as if it had never stopped."""

    stage: str
    step: int  # steps of the stage that are done
    model: Mapping[str, Any]
    average: Mapping[str, Any]
    optimizer: Mapping[str, Any]


CHECKPOINT = "checkpoint.pth"
Origins = Mapping[str, str]  # what a run began with beside its recipe: images, initial weights


def save_checkpoint(path: Path, config: TrainingConfig, checkpoint: Checkpoint, origins: Origins) -> None:
    """Write a checkpoint; should that fail, the one already there survives.

    Raises:
        OutputError: it cannot be written.
    """
    recipe = {**recipe_of(config), **origins}
    content = {"config": json.dumps(recipe), **{name: getattr(checkpoint, name) for name in _FIELDS}}
    unfinished = path.with_suffix(".unfinished")
    try:
        torch.save(content, unfinished)
        unfinished.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as the latter
        unfinished.unlink(missing_ok=True)
        cause = " ".join(str(error).split())[:150]
        raise OutputError(
            f"cannot write the checkpoint {path} ({cause}): free some space and start again, the last one is intact."
        ) from error


def load_checkpoint(path: Path, config: TrainingConfig, origins: Origins) -> Checkpoint:
    """Read a checkpoint of the same recipe and origins; one that does not name the latter is taken to have the same.

    Raises:
        TrainingError: the file is damaged.
        ConfigError: it belongs to another recipe, or began with something else.
    """
    try:
        content = torch.load(path, "cpu", weights_only=True)
        stored = {**origins, **json.loads(content["config"])}
        checkpoint = Checkpoint(**{name: content[name] for name in _FIELDS})
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"the checkpoint {path} is damaged ({type(error).__name__}): delete it to start again."
        ) from error
    difference = _first_difference(stored, json.loads(json.dumps({**recipe_of(config), **origins})))
    if difference is not None:
        name, old, new = difference
        raise ConfigError(
            f"{path} was trained with {name} = {old}, not {new}: resume with the same, or choose another --output."
        )
    return checkpoint


def checkpoint_in(folder: Path, config: TrainingConfig, origins: Origins) -> Checkpoint | None:
    """The checkpoint of a run in a folder, None before its first one.

    Raises:
        ConfigError, TrainingError: as ``load_checkpoint``.
    """
    path = folder / CHECKPOINT
    return load_checkpoint(path, config, origins) if path.is_file() else None


_FIELDS = ("stage", "step", "model", "average", "optimizer")


def _first_difference(old: Any, new: Any, name: str = "") -> tuple[str, Any, Any] | None:
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        found = (_first_difference(old[key], new[key], f"{name}.{key}".lstrip(".")) for key in old)
        return next(filter(None, found), None)
    return None if old == new else (name, old, new)
