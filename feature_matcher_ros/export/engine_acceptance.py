"""Whether a network in half precision still finds what it finds in float32, and which graphs have to stay as they were.

Both match stored pairs of images. Where a GPU is at hand the engines themselves are tried; elsewhere the graphs that
they are built from, executed by ONNX Runtime and rounded as float16 rounds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from feature_matcher_ros.config import ExtractorConfig, MatcherConfig, PoseConfig
from feature_matcher_ros.datatypes import Features, Frame, Image, Matches
from feature_matcher_ros.errors import MatcherError
from feature_matcher_ros.export.half_precision import rounded_for_cpu
from feature_matcher_ros.export.to_tensorrt import FLOAT16, FLOAT32, MATCHES_POINTS, prepared_graph
from feature_matcher_ros.extractors.extractor import Extractor
from feature_matcher_ros.extractors.network_points import NetworkPoints
from feature_matcher_ros.extractors.point_graphs import open_points
from feature_matcher_ros.geometry import angle_between_deg, rotation_angle_deg
from feature_matcher_ros.matchers import dense_rules, lightglue_rules
from feature_matcher_ros.matchers.dense_graphs import open_dense
from feature_matcher_ros.matchers.detector_free import DetectorFree
from feature_matcher_ros.matchers.lightglue import LightGlue
from feature_matcher_ros.matchers.lightglue_graphs import open_lightglue
from feature_matcher_ros.matchers.matcher import Matcher
from feature_matcher_ros.matchers.mutual_nearest import MutualNearest
from feature_matcher_ros.matchers.superglue import SuperGlue
from feature_matcher_ros.matchers.superglue_graphs import METHOD as SUPERGLUE
from feature_matcher_ros.matchers.superglue_graphs import open_superglue
from feature_matcher_ros.models.dense_config import DENSE_METHODS
from feature_matcher_ros.relative_pose import estimate_relative_pose
from feature_matcher_ros.runtimes.manifest import Manifest, read_manifest, sha256_of, write_manifest

MIN_RETENTION = 0.985
_SAME_POINT_PX = 0.5
FramePair = tuple[Frame, Frame]


@dataclass(frozen=True, slots=True)
class Acceptance:
    """How far the matches of a candidate are from those in float32, over all pairs."""

    executed_by: str
    num_pairs: int
    num_matches: int  # in float32
    retention: float  # share of them that the candidate finds too
    added: float  # matches that it finds beside them, as a share of them
    mean_score_difference: float  # of matches that both find
    max_score_difference: float
    same_layers: float  # share of the pairs in which the network stopped after the same layer
    lost_poses: int  # pairs with a pose in float32 only
    median_rotation_deg: float  # between the poses of both
    max_rotation_deg: float
    median_direction_deg: float
    max_direction_deg: float

    @property
    def is_passed(self) -> bool:
        return self.retention >= MIN_RETENTION


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """What a network is tried on."""

    pairs: Sequence[FramePair]
    extractor: Extractor | None = None  # of a network that matches points; others see the images themselves
    max_keypoints: int = 1024


Compare = Callable[[Mapping[str, str]], Acceptance]


def accepted_precisions(
    precisions: Mapping[str, str], compare: Compare, compare_one: Compare
) -> tuple[Mapping[str, str], Acceptance]:
    """Precisions that pass: as wanted, else with those graphs in float32 that do the most harm, one after the other.

    ``compare`` judges all graphs together, ``compare_one`` is asked for the harm of each by itself.

    Raises:
        MatcherError: not even float32 passes.
    """
    chosen = dict(precisions)
    acceptance = compare(chosen)
    harm: list[str] | None = None
    while not acceptance.is_passed:
        if harm is None:
            harm = _by_harm(precisions, compare_one)
        if not harm:
            raise MatcherError(
                f"the network keeps {100.0 * acceptance.retention:.1f} % of its matches in float32, where "
                f"{100.0 * MIN_RETENTION:.1f} % are wanted: build it without --accept, or use the runtime onnx."
            )
        chosen[harm.pop()] = FLOAT32
        acceptance = compare(chosen)
    return chosen, acceptance


def compare_on_cpu(folder: Path, trial: Trial) -> Compare:
    """A comparison of graphs as they are with the same graphs in other precisions, for ``accepted_precisions``."""
    manifest = read_manifest(folder)
    expected = _matches(_matcher(folder, manifest, trial, "onnx"), trial.pairs)

    def compare(precisions: Mapping[str, str]) -> Acceptance:
        with _rounded_network(folder, manifest, precisions) as candidate:
            found = _matches(_matcher(candidate, manifest, trial, "onnx"), trial.pairs)
        return _acceptance("ONNX Runtime on the CPU, rounding as the GPU does", expected, found, trial.pairs)

    return compare


def compare_on_gpu(folder: Path, trial: Trial, build: Callable[[Mapping[str, str]], object]) -> Compare:
    """The same comparison with the engines that ``build`` writes to the user's cache."""
    manifest = read_manifest(folder)
    expected = _matches(_matcher(folder, manifest, trial, "onnx"), trial.pairs)

    def compare(precisions: Mapping[str, str]) -> Acceptance:
        build(precisions)
        found = _matches(_matcher(folder, manifest, trial, "tensorrt"), trial.pairs)
        return _acceptance("TensorRT", expected, found, trial.pairs)

    return compare


def _by_harm(precisions: Mapping[str, str], compare: Compare) -> list[str]:
    """The graphs in float16, the most harmful one last."""
    halves = [name for name, precision in precisions.items() if precision == FLOAT16]
    everything = dict.fromkeys(precisions, FLOAT32)
    kept = {name: compare({**everything, name: FLOAT16}).retention for name in halves}
    return sorted(halves, key=lambda name: -kept[name])


@contextmanager
def _rounded_network(folder: Path, manifest: Manifest, precisions: Mapping[str, str]) -> Iterator[Path]:
    """The graphs that engines would be built from, in a folder of their own."""
    with tempfile.TemporaryDirectory(prefix="feature_matcher_") as name:
        entries = {}
        for graph, entry in manifest.graphs.items():
            path = Path(name) / entry.file
            onnx.save(rounded_for_cpu(prepared_graph(folder, manifest, graph, precisions[graph])), str(path))
            entries[graph] = replace(entry, sha256=sha256_of(path))
        write_manifest(Path(name), replace(manifest, graphs=entries))
        yield Path(name)


def _matcher(folder: Path, manifest: Manifest, trial: Trial, runtime: str) -> Matcher:
    """The network as it is used by default, every layer only where it is needed."""
    if manifest.method in DENSE_METHODS:
        return DetectorFree(open_dense(folder, runtime=runtime), dense_rules(MatcherConfig()))
    if manifest.method not in MATCHES_POINTS:
        config = ExtractorConfig(name=manifest.method, max_keypoints=trial.max_keypoints)
        return MutualNearest(NetworkPoints(open_points(folder, runtime), config), MatcherConfig())
    if trial.extractor is None:
        raise MatcherError("a matching network is tried on points: name the extractor that it was made for.")
    if manifest.method == SUPERGLUE:
        return SuperGlue(trial.extractor, open_superglue(folder, runtime), MatcherConfig().min_score)
    return LightGlue(trial.extractor, open_lightglue(folder, runtime), lightglue_rules(MatcherConfig()))


class Remembering:
    """An extractor that looks at every image once only."""

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor
        self._known: dict[int, tuple[Image, Features]] = {}  # keeps the image, whose identity is the key

    @property
    def name(self) -> str:
        return self._extractor.name

    def extract(self, image: Image, mask: Image | None = None) -> Features:
        if id(image) not in self._known:
            self._known[id(image)] = image, self._extractor.extract(image, mask)
        return self._known[id(image)][1]


def _matches(matcher: Matcher, pairs: Sequence[FramePair]) -> list[Matches]:
    return [matcher.match(matcher.extract(frame0.image), matcher.extract(frame1.image)) for frame0, frame1 in pairs]


def _acceptance(
    executed_by: str, expected: Sequence[Matches], found: Sequence[Matches], pairs: Sequence[FramePair]
) -> Acceptance:
    partners = [_partners(wanted, got) for wanted, got in zip(expected, found, strict=True)]
    num_matches = sum(map(len, expected))
    num_kept = sum(int(np.count_nonzero(partner >= 0)) for partner in partners)
    scores = np.concatenate([
        np.abs(wanted.scores[partner >= 0] - got.scores[partner[partner >= 0]])
        for wanted, got, partner in zip(expected, found, partners, strict=True)
    ])  # fmt: skip
    rotations, directions, num_lost = _pose_differences(expected, found, pairs)
    return Acceptance(
        executed_by=executed_by,
        num_pairs=len(pairs),
        num_matches=num_matches,
        retention=num_kept / max(1, num_matches),
        added=(sum(map(len, found)) - num_kept) / max(1, num_matches),
        mean_score_difference=_statistic(np.mean, scores),
        max_score_difference=_statistic(np.max, scores),
        same_layers=float(np.mean([a.layers_run == b.layers_run for a, b in zip(expected, found, strict=True)])),
        lost_poses=num_lost,
        median_rotation_deg=_statistic(np.median, rotations),
        max_rotation_deg=_statistic(np.max, rotations),
        median_direction_deg=_statistic(np.median, directions),
        max_direction_deg=_statistic(np.max, directions),
    )


def _partners(expected: Matches, found: Matches) -> NDArray[np.intp]:
    """For each expected match the number of the found one with both points where they were, or -1."""
    if len(found) == 0:
        return np.full(len(expected), -1, np.intp)
    wanted, got = (np.hstack((matches.points0, matches.points1)) for matches in (expected, found))
    result = np.full(len(wanted), -1, np.intp)
    for number, match in enumerate(wanted):
        distances = np.abs(got - match).max(axis=1)
        nearest = int(np.argmin(distances))
        if distances[nearest] <= _SAME_POINT_PX:
            result[number] = nearest
    return result


def _pose_differences(
    expected: Sequence[Matches], found: Sequence[Matches], pairs: Sequence[FramePair]
) -> tuple[list[float], list[float], int]:
    """Degrees between rotations and between directions where both have one, and how many poses were lost."""
    rotations, directions, num_lost = [], [], 0
    for wanted, got, (frame0, frame1) in zip(expected, found, pairs, strict=True):
        poses = [
            estimate_relative_pose(matches.points0, matches.points1, frame0.camera, frame1.camera, PoseConfig()).pose
            for matches in (wanted, got)
        ]
        if poses[0] is None or poses[1] is None:
            num_lost += poses[0] is not None
            continue
        rotations.append(rotation_angle_deg(poses[0].rotation.T @ poses[1].rotation))
        if poses[0].direction is not None and poses[1].direction is not None:
            directions.append(angle_between_deg(poses[0].direction, poses[1].direction))
    return rotations, directions, num_lost


def _statistic(function: Callable[..., object], values: Sequence[float] | NDArray[np.floating]) -> float:
    return float(function(values)) if len(values) else 0.0  # type: ignore[arg-type]
