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


def save_checkpoint(path: Path, config: TrainingConfig, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; should that fail, the one already there survives.

    Raises:
        OutputError: it cannot be written.
    """
    content = {"config": json.dumps(recipe_of(config)), **{name: getattr(checkpoint, name) for name in _FIELDS}}
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


def load_checkpoint(path: Path, config: TrainingConfig) -> Checkpoint:
    """Read a checkpoint of the same recipe.

    Raises:
        TrainingError: the file is damaged.
        ConfigError: it belongs to another recipe.
    """
    try:
        content = torch.load(path, "cpu", weights_only=True)
        stored = json.loads(content["config"])
        checkpoint = Checkpoint(**{name: content[name] for name in _FIELDS})
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"the checkpoint {path} is damaged ({type(error).__name__}): delete it to begin anew."
        ) from error
    difference = _first_difference(stored, json.loads(json.dumps(recipe_of(config))))
    if difference is not None:
        name, old, new = difference
        raise ConfigError(
            f"{path} was trained with {name} = {old}, not {new}: resume with the same recipe, or choose another folder."
        )
    return checkpoint


_FIELDS = ("stage", "step", "model", "average", "optimizer")


def _first_difference(old: Any, new: Any, name: str = "") -> tuple[str, Any, Any] | None:
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        found = (_first_difference(old[key], new[key], f"{name}.{key}".lstrip(".")) for key in old)
        return next(filter(None, found), None)
    return None if old == new else (name, old, new)
