"""Views on disk: made once, in parallel processes, one file for each scene."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Generic, TypeVar
from zipfile import BadZipFile

import cv2
import numpy as np

from feature_matcher_ros.config import ExtractorConfig
from feature_matcher_ros.datatypes import Features
from feature_matcher_ros.errors import OutputError, SourceError
from feature_matcher_ros.extractors import create_extractor
from feature_matcher_ros.training.config import DataConfig, recipe_of
from feature_matcher_ros.training.dense_views import DENSE_NAMES, DenseView, dense_arrays, dense_from_arrays, dense_view
from feature_matcher_ros.training.scene_pictures import scene_pictures
from feature_matcher_ros.training.views import View

_GPU_PROCESSES = 8
Progress = Callable[[int, int], None]
Arrays = Mapping[str, np.ndarray]
_View = TypeVar("_View")


@dataclass(frozen=True, slots=True)
class ViewFormat(Generic[_View]):
    """How views are made, and what a file holds of one."""

    name: str
    make: Callable[[DataConfig, Sequence[Path], int, str], list[_View]]  # of a scene, by its number, on a device
    array_names: Sequence[str]
    to_arrays: Callable[[_View], Arrays]
    from_arrays: Callable[[Arrays], _View]


class ViewStore(Generic[_View]):
    """The views of all scenes of a configuration, those of each scene in one file."""

    def __init__(
        self, folder: Path, config: DataConfig, view_format: ViewFormat[_View], photographs: Sequence[Path] = ()
    ) -> None:
        """Only name the place; nothing is read or made yet. Without photographs, procedural images take their place."""
        self._config, self._format = config, view_format
        self._photographs = tuple(photographs)
        kind = config.extractor.name if config.extractor else view_format.name
        self._folder = folder / f"{kind}_{_folder_key(config, self._photographs)}"

    def __len__(self) -> int:
        return self._config.num_scenes

    def prepare(
        self, num_processes: int = 0, on_progress: Progress = lambda done, total: None, device: str = "cpu"
    ) -> None:
        """Make the views that are still missing; 0 takes a process for each core, and a ``device`` renders rooms.

        On a GPU each process holds a context and the textures of a scene: 0 takes no more than eight there.

        Raises:
            OutputError: they cannot be written.
            SourceError: a photograph is damaged.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write views to {self._folder} ({error}): choose a writable folder.") from error
        missing = [number for number in range(len(self)) if not self._path(number).is_file()]
        make = partial(_make_file, self._format, self._config, self._photographs, device)
        on_progress(len(self) - len(missing), len(self))
        context = get_context("spawn")  # OpenCV's threads do not survive a fork
        most = os.cpu_count() or 1 if device == "cpu" else min(os.cpu_count() or 1, _GPU_PROCESSES)
        with ProcessPoolExecutor(num_processes or most, context) as pool:
            pending = [pool.submit(make, number, self._path(number)) for number in missing]
            try:
                for done, future in enumerate(as_completed(pending), start=1 + len(self) - len(missing)):
                    future.result()
                    on_progress(done, len(self))
            except BaseException:
                pool.shutdown(cancel_futures=True)  # or an error would be told only after all scenes are made
                raise

    def read(self, number: int) -> list[_View]:
        """The views of a scene.

        Raises:
            SourceError: they were not made, or the file is damaged.
        """
        path = self._path(number)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                count = sum(name.startswith("projection_") for name in arrays)
                named = [
                    {name: arrays[f"{name}_{index}"] for name in self._format.array_names} for index in range(count)
                ]
                return [self._format.from_arrays(part) for part in named]
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise SourceError(
                f"the views {path} cannot be read ({error}): delete the file, it is made again."
            ) from error

    def _path(self, number: int) -> Path:
        return self._folder / f"scene_{number:06d}.npz"


def make_views(config: DataConfig, photographs: Sequence[Path], number: int, device: str = "cpu") -> list[View]:
    """The views of one scene; the same for the same configuration, photographs and number."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng((config.seed, number))
    extractor = create_extractor(_extractor_config(config, rng))
    return [
        View(features, picture.projection, picture.locate(features.keypoints))
        for picture in scene_pictures(config, photographs, number, rng, device)
        if len(features := extractor.extract(picture.image)) > 0
    ]


def make_dense_views(
    config: DataConfig, photographs: Sequence[Path], number: int, device: str = "cpu"
) -> list[DenseView]:
    """The same for a network that has no detector, and sees the images themselves."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng((config.seed, number))
    return [dense_view(picture, rng) for picture in scene_pictures(config, photographs, number, rng, device)]


def _extractor_config(config: DataConfig, rng: np.random.Generator) -> ExtractorConfig:
    assert config.extractor is not None
    if rng.random() >= config.shrunk_share:
        return config.extractor
    return replace(config.extractor, max_image_px=max(config.image_size) // 2)


def _make_file(
    view_format: ViewFormat[_View],
    config: DataConfig,
    photographs: Sequence[Path],
    device: str,
    number: int,
    path: Path,
) -> None:
    arrays: dict[str, np.ndarray] = {}
    for index, view in enumerate(view_format.make(config, photographs, number, device)):
        for name, array in view_format.to_arrays(view).items():
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


def _view(arrays: Arrays) -> View:
    size = arrays["image_size"]
    features = Features(
        keypoints=arrays["keypoints"],
        keypoint_scores=arrays["keypoint_scores"],
        descriptors=arrays["descriptors"],
        image_size=(int(size[0]), int(size[1])),
        scales=arrays["scales"],
        orientations=arrays["orientations"],
    )
    return View(features, arrays["projection"], arrays["scene_points"])


_NAMES = (
    "keypoints", "keypoint_scores", "descriptors", "image_size", "scales", "orientations", "projection", "scene_points",
)  # fmt: skip

POINT_VIEWS = ViewFormat("points", make_views, _NAMES, _arrays, _view)
DENSE_VIEWS = ViewFormat("dense", make_dense_views, DENSE_NAMES, dense_arrays, dense_from_arrays)


def _folder_key(config: DataConfig, photographs: Sequence[Path]) -> str:
    """A folder name that changes with anything that the views of a scene depend on."""
    content = {**recipe_of(config), "num_scenes": 0}, [(path.name, path.stat().st_size) for path in photographs]
    return fingerprint(content)


def fingerprint(content: object) -> str:
    """A short name of what can be written out."""
    return hashlib.sha256(repr(content).encode()).hexdigest()[:12]
