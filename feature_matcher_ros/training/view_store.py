"""Views on disk: made once, in parallel processes, one file for each scene."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np

from feature_matcher_ros.config import ExtractorConfig
from feature_matcher_ros.datatypes import Features, Image
from feature_matcher_ros.errors import OutputError, SourceError
from feature_matcher_ros.extractors import create_extractor
from feature_matcher_ros.training.config import DataConfig, recipe_of
from feature_matcher_ros.training.flat_scenes import flat_pictures
from feature_matcher_ros.training.photographs import procedural_photograph, read_photograph
from feature_matcher_ros.training.rendered_scenes import draw_photographs, rendered_pictures
from feature_matcher_ros.training.views import Picture, View

_NUM_PROCEDURAL = 256
_PHOTOGRAPHS_PER_ROOM = 40
Progress = Callable[[int, int], None]


class ViewStore:
    """The views of all scenes of a configuration, those of each scene in one file."""

    def __init__(self, folder: Path, config: DataConfig, photographs: Sequence[Path] = ()) -> None:
        """Name the place; nothing is read or made yet. Without photographs, procedural images take their place."""
        self._config = config
        self._photographs = tuple(photographs)
        self._folder = folder / _fingerprint(config, self._photographs)

    def __len__(self) -> int:
        return self._config.num_scenes

    def prepare(self, num_processes: int = 0, on_progress: Progress = lambda done, total: None) -> None:
        """Make the views that are still missing; 0 takes a process for each core.

        Raises:
            OutputError: they cannot be written.
            SourceError: a photograph is damaged.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write views to {self._folder} ({error}): choose a writable folder.") from error
        missing = [number for number in range(len(self)) if not self._path(number).is_file()]
        make = partial(_make_file, self._config, self._photographs)
        on_progress(len(self) - len(missing), len(self))
        context = get_context("spawn")  # OpenCV's threads do not survive a fork
        with ProcessPoolExecutor(num_processes or os.cpu_count() or 1, context) as pool:
            pending = [pool.submit(make, number, self._path(number)) for number in missing]
            for done, future in enumerate(as_completed(pending), start=1 + len(self) - len(missing)):
                future.result()
                on_progress(done, len(self))

    def read(self, number: int) -> list[View]:
        """The views of a scene.

        Raises:
            SourceError: they were not made, or the file is damaged.
        """
        path = self._path(number)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return list(_views(arrays))
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise SourceError(
                f"the views {path} cannot be read ({error}): delete the file, it is made again."
            ) from error

    def _path(self, number: int) -> Path:
        return self._folder / f"scene_{number:06d}.npz"


def make_views(config: DataConfig, photographs: Sequence[Path], number: int) -> list[View]:
    """The views of one scene; the same for the same configuration, photographs and number."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng((config.seed, number))
    extractor = create_extractor(_extractor_config(config, rng))
    return [
        View(features, picture.projection, picture.locate(features.keypoints))
        for picture in _pictures(config, photographs, number, rng)
        if len(features := extractor.extract(picture.image)) > 0
    ]


def _extractor_config(config: DataConfig, rng: np.random.Generator) -> ExtractorConfig:
    if rng.random() >= config.shrunk_share:
        return config.extractor
    return replace(config.extractor, max_image_px=max(config.image_size) // 2)


def _pictures(config: DataConfig, photographs: Sequence[Path], number: int, rng: np.random.Generator) -> list[Picture]:
    if not config.is_rendered(number):
        photograph = _photograph(photographs, number)
        return flat_pictures(photograph, config.views_per_scene, config.image_size, rng)
    chosen = rng.integers(0, len(photographs) or _NUM_PROCEDURAL, _PHOTOGRAPHS_PER_ROOM)
    draw = draw_photographs([_photograph(photographs, int(choice)) for choice in chosen], rng)
    return rendered_pictures(draw, config.views_per_scene, config.image_size, rng)


def _photograph(photographs: Sequence[Path], number: int) -> Image:
    if not photographs:
        return _procedural(number % _NUM_PROCEDURAL)
    return _read(photographs[number % len(photographs)])


_read = lru_cache(maxsize=512)(read_photograph)
_procedural = lru_cache(maxsize=_NUM_PROCEDURAL)(procedural_photograph)


def _make_file(config: DataConfig, photographs: Sequence[Path], number: int, path: Path) -> None:
    arrays: dict[str, np.ndarray] = {}
    for index, view in enumerate(make_views(config, photographs, number)):
        for name, array in _arrays(view).items():
            arrays[f"{name}_{index}"] = array
    unfinished = path.with_suffix(".unfinished")
    try:
        with unfinished.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise OutputError(
            f"cannot write the views {path} ({error}): free some space or choose another folder."
        ) from error


def _arrays(view: View) -> dict[str, np.ndarray]:
    """Descriptors of unit length lose nothing that matters in half precision."""
    features = view.features
    descriptors = (
        features.descriptors if features.descriptors.dtype == np.uint8 else features.descriptors.astype(np.float16)
    )
    assert features.scales is not None and features.orientations is not None
    return {
        "keypoints": features.keypoints,
        "keypoint_scores": features.keypoint_scores,
        "descriptors": descriptors,
        "image_size": np.array(features.image_size),
        "scales": features.scales,
        "orientations": features.orientations,
        "projection": view.projection,
        "scene_points": view.scene_points,
    }


def _views(arrays: np.lib.npyio.NpzFile) -> Iterator[View]:
    for index in range(sum(name.startswith("keypoints_") for name in arrays)):
        part = {name: arrays[f"{name}_{index}"] for name in _NAMES}
        yield View(
            Features(
                keypoints=part["keypoints"],
                keypoint_scores=part["keypoint_scores"],
                descriptors=part["descriptors"],
                image_size=(int(part["image_size"][0]), int(part["image_size"][1])),
                scales=part["scales"],
                orientations=part["orientations"],
            ),
            part["projection"],
            part["scene_points"],
        )


_NAMES = (
    "keypoints", "keypoint_scores", "descriptors", "image_size", "scales", "orientations", "projection", "scene_points",
)  # fmt: skip


def _fingerprint(config: DataConfig, photographs: Sequence[Path]) -> str:
    """A folder name that changes with anything that the views of a scene depend on."""
    content = {**recipe_of(config), "num_scenes": 0}, [(path.name, path.stat().st_size) for path in photographs]
    return f"{config.extractor.name}_{hashlib.sha256(repr(content).encode()).hexdigest()[:12]}"
