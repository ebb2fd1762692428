"""Every parameter: its default, its unit, its range and one line that says what it does.

These dataclasses, with those of ``node_config``, are the only place where defaults live. The YAML file
that ships, the command line and the node's parameters are all derived from them.

The YAML is that of a ROS 2 parameter file, ``/**: ros__parameters: ...``, so that one file serves the
node and the command line; the sections may also stand at the top level without that wrapping.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from feature_matcher_ros.errors import ConfigError
from feature_matcher_ros.parameter_file import ROS_KEY, is_of_node, own_parameters, read_yaml
from feature_matcher_ros.parameter_values import yaml_line
from feature_matcher_ros.parameters import Parameter, checked, describe, parameter

_YAML_HEADER = """\
# Every parameter of the front-end, with its default; what a file leaves out keeps its default.
# Read by `feature-matcher replay --config FILE` and by the node's `--ros-args --params-file FILE`.
"""
AUTO = "auto"
MATCHERS = ("mutual_nearest", "lightglue", "superglue", "efficient_loftr", "loftr")
RUNTIMES = ("auto", "onnx", "tensorrt", "torch", "torch_float16")


@dataclass(frozen=True, slots=True)
class ExtractorConfig:
    """How points are found and described."""

    name: str = parameter(
        "sift",
        "method that detects and describes points",
        choices=("sift", "orb", "xfeat", "aliked", "disk", "superpoint"),
    )
    graphs: str = parameter("", "folder of the exported network; not needed for sift and orb")
    runtime: str = parameter(
        "auto",
        "what executes the network; auto uses tensorrt if possible, else torch on a GPU, else onnx",
        choices=RUNTIMES,
    )
    num_threads: int = parameter(0, "threads that execute the network; 0 uses one per core", minimum=0)
    max_keypoints: int = parameter(
        1024, "at most this many points are kept per image, the best ones", minimum=1, maximum=65536
    )
    grid_cell_px: int = parameter(
        64,
        "points are spread evenly over cells of this size; 0 keeps the strongest wherever they are",
        unit="px",
        minimum=0,
    )
    max_image_px: int = parameter(
        2048, "an image whose longer side exceeds this is shrunk before points are detected", unit="px", minimum=32
    )


@dataclass(frozen=True, slots=True)
class MatcherConfig:
    """How the points of two images are paired."""

    name: str = parameter(
        AUTO,
        "method that pairs points; auto takes lightglue if one ships for the extractor; the last two need no extractor",
        choices=(AUTO, *MATCHERS),
    )
    max_ratio: float = parameter(
        0.9,
        "mutual_nearest: largest ratio of the distances to the best and to the second best match; 1 disables the test",
        minimum=0.0,
        maximum=1.0,
    )
    graphs: str = parameter("", "folder of the exported network; empty: the one that ships for the extractor")
    runtime: str = parameter(
        "auto",
        "what executes the network; auto uses tensorrt if possible, else torch on a GPU, else onnx",
        choices=RUNTIMES,
    )
    num_threads: int = parameter(0, "threads that execute the network; 0 uses one per core", minimum=0)
    depth_confidence: float = parameter(
        0.95,
        "a network stops once more than this share of the points is final; 1 runs all layers",
        minimum=0.01,
        maximum=1.0,
    )
    width_confidence: float = parameter(
        0.99,
        "lightglue without matchability_thresholds drops points that are unmatchable with this certainty; 1 keeps all",
        minimum=0.01,
        maximum=1.0,
    )
    confidence_thresholds: tuple[float, ...] = parameter(
        (),
        "confidence from which a point is final, per layer (1: never); empty: those of the network",
        minimum=0.0,
        maximum=1.0,
    )
    matchability_thresholds: tuple[float, ...] = parameter(
        (),
        "matchability below which lightglue drops a point, per layer (0: never); empty: those of the network",
        minimum=0.0,
        maximum=1.0,
    )
    min_score: float = parameter(
        0.2,
        "a network rejects matches that are less likely than this; 0.1 in lightglue's paper",
        minimum=0.0,
        maximum=1.0,
    )
    match_budget_ms: float = parameter(
        0.0, "lightglue starts no layer that would end later than this; 0 sets no limit", unit="ms", minimum=0.0
    )
    coarse: str = parameter(
        "full",
        "how efficient_loftr compares cells: full, by probabilities, or optimized, faster and without them",
        choices=("full", "optimized"),
    )
    max_image_px: int = parameter(
        0,
        "a method without extractor shrinks images whose longer side exceeds this; 0 takes what suits the network",
        unit="px",
        minimum=0,
    )
    max_matches: int = parameter(
        2048, "a method without extractor returns at most this many matches, the best ones", minimum=1
    )


@dataclass(frozen=True, slots=True)
class PoseConfig:
    """How a robust motion is estimated from correspondences."""

    max_epipolar_error_px: float = parameter(
        1.5, "largest distance of an inlier from the motion model", unit="px", minimum=0.05, maximum=50.0
    )
    keypoint_sigma_px: float = parameter(
        0.7, "expected localisation noise of a correspondence", unit="px", minimum=0.01, maximum=20.0
    )
    standstill_px: float = parameter(
        0.5,
        "a rotation that moves the image by less than this counts as standing still",
        unit="px",
        minimum=0.0,
        maximum=10.0,
    )
    success_probability: float = parameter(
        0.9999, "RANSAC stops when a better model is less likely than one minus this", minimum=0.5, maximum=0.999999
    )
    max_iterations: int = parameter(1000, "RANSAC never draws more samples than this", minimum=10, maximum=1_000_000)
    min_matches: int = parameter(15, "fewer matches give no pose", minimum=5)
    min_inliers: int = parameter(12, "fewer inliers give no pose", minimum=5)
    seed: int = parameter(0, "seed of every random choice; same seed, same output", minimum=0, maximum=1_000_000_000)


@dataclass(frozen=True, slots=True)
class KeyframeConfig:
    """When a frame is matched, and when it becomes the keyframe."""

    match_every_frame: bool = parameter(False, "match every frame instead of asking the optical-flow gate first")
    max_gate_points: int = parameter(300, "points that the gate follows", minimum=20, maximum=5000)
    min_parallax_px: float = parameter(
        12.0, "a frame is matched, and becomes the keyframe, from this median parallax on", unit="px", minimum=0.0
    )
    min_survival: float = parameter(
        0.6, "likewise when less than this share of the keyframe's points is still seen", minimum=0.0, maximum=1.0
    )
    max_rotation_deg: float = parameter(
        12.0, "likewise when the camera has turned by more than this", unit="deg", minimum=0.0, maximum=180.0
    )
    max_interval_ms: float = parameter(
        500.0, "a frame is matched at least this often, even when nothing moves", unit="ms", minimum=0.0
    )
    max_keyframe_age_ms: float = parameter(
        2000.0,
        "a frame becomes the keyframe when the old one is older than this and the view has moved",
        unit="ms",
        minimum=0.0,
    )
    max_recovery_keyframes: int = parameter(
        5, "after a loss, this many of the last good keyframes are tried before starting anew", minimum=0, maximum=100
    )
    max_lost_frames: int = parameter(
        15, "a new segment starts after this many frames without a connection", minimum=1, maximum=100000
    )


@dataclass(frozen=True, slots=True)
class TrackConfig:
    """How correspondences keep their identity across keyframes."""

    merge_radius_px: float = parameter(
        8.5, "matches without keypoint numbers join a track whose point lies this close", unit="px", minimum=0.0
    )


@dataclass(frozen=True, slots=True)
class FrontEndConfig:
    """All parameters of the front-end, by part."""

    extractor: ExtractorConfig = field(default_factory=ExtractorConfig)
    matcher: MatcherConfig = field(default_factory=MatcherConfig)
    pose: PoseConfig = field(default_factory=PoseConfig)
    keyframes: KeyframeConfig = field(default_factory=KeyframeConfig)
    tracks: TrackConfig = field(default_factory=TrackConfig)


# The parameters of the front-end, or with those of the node beside them (``node_config``).
Config = typing.TypeVar("Config", bound=FrontEndConfig)


def iterate_parameters(config: FrontEndConfig | None = None) -> Iterator[Parameter]:
    """Yield every parameter; its ``default`` is the value in ``config`` where one is given."""
    config = FrontEndConfig() if config is None else config
    for section in fields(config):
        part = getattr(config, section.name)
        types = typing.get_type_hints(type(part))
        for entry in fields(part):
            value = getattr(part, entry.name)
            yield Parameter(f"{section.name}.{entry.name}", types[entry.name], value, entry.metadata["info"])


def load_config(path: Path) -> FrontEndConfig:
    """Read a YAML file; what it does not mention keeps its default, and what concerns only the node is left out.

    Raises:
        ConfigError: the file cannot be read, or holds an unknown key or a value of the wrong type or range.
    """
    content = read_yaml(path)
    try:
        values = own_parameters(content, [section.name for section in fields(FrontEndConfig)])
        return override(FrontEndConfig(), {key: value for key, value in values.items() if not is_of_node(key)})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def override(config: Config, values: Mapping[str, Any]) -> Config:
    """Return ``config`` with some values replaced, given by dotted path; strings are parsed by type.

    Raises:
        ConfigError: a path is unknown or a value is of the wrong type or out of range.
    """
    known = {entry.path: entry for entry in iterate_parameters(config)}
    for path, value in values.items():
        if path not in known:
            close = difflib.get_close_matches(path, known, n=1)
            remedy = f"did you mean '{close[0]}'?" if close else f"there are those of {_sections(known)}."
            raise ConfigError(f"unknown parameter '{path}': {remedy}")
        section, name = path.split(".")
        part = replace(getattr(config, section), **{name: checked(known[path], value)})
        config = replace(config, **{section: part})
    return config


def _sections(paths: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(f"{path.split('.')[0]}.*" for path in paths))


def to_yaml(config: FrontEndConfig) -> str:
    """Write all parameters with their help as comments; ``load_config`` reads the same values back."""
    lines = ["/**:", f"  {ROS_KEY}:"]
    for section in fields(config):
        part = getattr(config, section.name)
        assert is_dataclass(part) and part.__doc__ is not None
        lines += ["", f"    # {part.__doc__}", f"    {section.name}:"]
        for entry in iterate_parameters(config):
            if entry.path.startswith(section.name + "."):
                lines += [f"      # {describe(entry)}", "      " + yaml_line(entry.path.split(".")[1], entry.default)]
    return _YAML_HEADER + "\n".join(lines) + "\n"
