"""Every parameter: its default, its unit, its range and one line that says what it does.

These dataclasses are the only place where defaults live. The YAML file that ships, the command line
and the node's parameters are all derived from them.
"""

from __future__ import annotations

import difflib
import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from feature_matcher_ros.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ParameterInfo:
    """What a person has to know about a parameter beside its name, type and default."""

    help: str
    unit: str = ""
    minimum: float = -math.inf
    maximum: float = math.inf
    choices: tuple[str, ...] = ()


def parameter(
    default: Any,
    help: str,
    *,
    unit: str = "",
    minimum: float = -math.inf,
    maximum: float = math.inf,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare one field of a configuration dataclass."""
    return field(default=default, metadata={"info": ParameterInfo(help, unit, minimum, maximum, choices)})


@dataclass(frozen=True, slots=True)
class ExtractorConfig:
    """How points are found and described."""

    name: str = parameter("sift", "method that detects and describes points", choices=("sift", "orb"))
    max_keypoints: int = parameter(1024, "points kept per image, the best ones", minimum=1, maximum=65536)
    grid_cell_px: int = parameter(
        64,
        "points are spread evenly over cells of this size; 0 keeps the strongest wherever they are",
        unit="px",
        minimum=0,
    )


@dataclass(frozen=True, slots=True)
class MatcherConfig:
    """How the points of two images are paired."""

    name: str = parameter("mutual_nearest", "method that pairs points", choices=("mutual_nearest",))
    max_ratio: float = parameter(
        0.85, "a match must be this much closer than the second best; 1 switches the test off", minimum=0.0, maximum=1.0
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
    success_probability: float = parameter(
        0.9999, "RANSAC stops when a better model is less likely than one minus this", minimum=0.5, maximum=0.999999
    )
    max_iterations: int = parameter(1000, "RANSAC never draws more samples than this", minimum=10, maximum=1_000_000)
    min_matches: int = parameter(15, "fewer matches give no pose", minimum=5)
    min_inliers: int = parameter(12, "fewer inliers give no pose", minimum=5)
    seed: int = parameter(0, "seed of every random choice; same input and seed, same output", minimum=0)


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
        12.0, "likewise when the camera turned by more than this", unit="deg", minimum=0.0, maximum=180.0
    )
    max_interval_ms: float = parameter(
        1000.0, "likewise when the keyframe is older than this and the camera moved", unit="ms", minimum=0.0
    )
    max_recovery_keyframes: int = parameter(
        5, "after a loss, this many of the last good keyframes are tried before starting anew", minimum=0, maximum=100
    )
    max_lost_frames: int = parameter(
        15, "frames without a connection after which a new segment starts", minimum=1, maximum=100000
    )


@dataclass(frozen=True, slots=True)
class TrackConfig:
    """How correspondences keep their identity across keyframes."""

    merge_radius_px: float = parameter(
        2.0, "matches without keypoint numbers join a track whose point lies this close", unit="px", minimum=0.0
    )


@dataclass(frozen=True, slots=True)
class FrontEndConfig:
    """All parameters of the front-end, by part."""

    extractor: ExtractorConfig = field(default_factory=ExtractorConfig)
    matcher: MatcherConfig = field(default_factory=MatcherConfig)
    pose: PoseConfig = field(default_factory=PoseConfig)
    keyframes: KeyframeConfig = field(default_factory=KeyframeConfig)
    tracks: TrackConfig = field(default_factory=TrackConfig)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter, as seen by the YAML writer, ``--set`` and the node."""

    path: str  # "keyframes.min_survival"
    type: type
    default: bool | int | float | str
    info: ParameterInfo


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
    """Read a YAML file; what it does not mention keeps its default.

    Raises:
        ConfigError: the file cannot be read, or holds an unknown key or a value of the wrong type or range.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path} ({error}): give the path of a YAML file.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML ({' '.join(str(error).split())}): correct the file.") from error
    return config_from_mapping({} if content is None else content)


def config_from_mapping(content: Mapping[str, Any]) -> FrontEndConfig:
    """Build a configuration from nested mappings, as YAML gives them."""
    return override(FrontEndConfig(), _flatten(content))


def override(config: FrontEndConfig, values: Mapping[str, Any]) -> FrontEndConfig:
    """Return ``config`` with some values replaced, given by dotted path; strings are parsed by type.

    Raises:
        ConfigError: a path is unknown or a value is of the wrong type or out of range.
    """
    known = {entry.path: entry for entry in iterate_parameters(config)}
    for path, value in values.items():
        if path not in known:
            close = difflib.get_close_matches(path, known, n=1, cutoff=0.0)
            raise ConfigError(f"unknown parameter '{path}': did you mean '{close[0]}'?")
        section, name = path.split(".")
        part = replace(getattr(config, section), **{name: _checked(known[path], value)})
        config = replace(config, **{section: part})
    return config


def to_yaml(config: FrontEndConfig) -> str:
    """Write all parameters with their help as comments; ``load_config`` reads the same values back."""
    lines: list[str] = []
    for section in fields(config):
        part = getattr(config, section.name)
        assert is_dataclass(part) and part.__doc__ is not None
        lines += ["", f"# {part.__doc__}", f"{section.name}:"]
        for entry in iterate_parameters(config):
            if entry.path.startswith(section.name + "."):
                name = entry.path.split(".")[1]
                lines += [f"  # {describe(entry)}", f"  {name}: {yaml.safe_dump(entry.default).splitlines()[0]}"]
    return "\n".join(lines[1:]) + "\n"


def describe(entry: Parameter) -> str:
    """One line: what it does, its unit, its range or choices."""
    info = entry.info
    notes = [info.unit] if info.unit else []
    if info.choices:
        notes.append(" | ".join(info.choices))
    if math.isfinite(info.minimum) or math.isfinite(info.maximum):
        notes.append(_range(info))
    return info.help + (f" ({', '.join(notes)})" if notes else "")


def _range(info: ParameterInfo) -> str:
    if math.isinf(info.maximum):
        return f"at least {info.minimum:g}"
    return f"{info.minimum:g} to {info.maximum:g}"


def _flatten(content: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        raise ConfigError(
            f"a configuration must map sections to parameters, not {content!r}: see config/front_end.yaml."
        )
    flat: dict[str, Any] = {}
    for section, part in content.items():
        if isinstance(part, Mapping):
            flat.update({f"{section}.{name}": value for name, value in part.items()})
        elif part is not None:
            flat[str(section)] = part
    return flat


def _checked(entry: Parameter, value: Any) -> bool | int | float | str:
    converted = _converted(entry, value)
    info = entry.info
    if info.choices and converted not in info.choices:
        raise ConfigError(f"{entry.path} = {value!r} is not one of {', '.join(info.choices)}.")
    if not isinstance(converted, str) and not info.minimum <= converted <= info.maximum:
        raise ConfigError(f"{entry.path} = {value} is out of range: give a value of {_range(info)}.")
    return converted


def _converted(entry: Parameter, value: Any) -> bool | int | float | str:
    parsed = yaml.safe_load(value) if isinstance(value, str) and entry.type is not str else value
    if entry.type is float and isinstance(parsed, (int, float)) and not isinstance(parsed, bool):
        return float(parsed)
    if type(parsed) is entry.type:
        return typing.cast("bool | int | float | str", parsed)
    raise ConfigError(f"{entry.path} = {value!r} is not of type {entry.type.__name__}: correct the value.")
