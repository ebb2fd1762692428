"""How long every stage takes on this machine, on rendered frames of 640x480 pixels.

Every frame is decoded, matched with the one before and becomes the keyframe: the costliest case, which
the gate spares most frames of a live camera. Each setting runs in a process whose libraries were
limited to its number of cores before they were loaded.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from feature_matcher_ros.config import FrontEndConfig, override
from feature_matcher_ros.datatypes import (
    DepthView,
    Features,
    Frame,
    FrontEndResult,
    Image,
    Matches,
    Status,
    StereoView,
)
from feature_matcher_ros.errors import MatcherError, OutputError
from feature_matcher_ros.evaluation.benchmark_machine import limited_process, machine_line
from feature_matcher_ros.evaluation.demo_scene import demo_frames
from feature_matcher_ros.evaluation.json_text import to_json
from feature_matcher_ros.evaluation.sequences import Modality
from feature_matcher_ros.front_end import FrontEnd
from feature_matcher_ros.matchers import NEAREST, create_matcher, shipped_name
from feature_matcher_ros.matchers.lightglue_graphs import METHOD as LIGHTGLUE
from feature_matcher_ros.matchers.matcher import Matcher
from feature_matcher_ros.ros.depth_decoder import MILLIMETRES, decode_depth
from feature_matcher_ros.ros.image_decoder import decode_compressed_image
from feature_matcher_ros.runtimes.shipped_graphs import find_shipped_graphs
from feature_matcher_ros.timing import StageTimer

STAGES = ("decode", "gate", "extract", "match", "points", "pose", "track", "keyframe")
PAIR = ("extract", "match", "pose")  # what a new image costs that is paired with one whose points are known
# What a matched frame costs whatever finds its matches. The gate is left out: it is there to save matches.
OUTSIDE = ("decode", "points", "pose", "track", "keyframe")
NUM_MATCHES = 1000  # at which the time outside extract and match is measured
_WIDTH = 640
_RATE_HZ = 5.0  # the demo's camera then moves by about 16 px from frame to frame
_FRAMES = slice(2, 15)  # of its first stretch, on which it moves freely
_WARM_UP = 2  # matched frames that do not count


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured."""

    cores: int
    extractor: str
    max_keypoints: int
    modality: Modality
    num_matches: int | None  # as many of the matches are used; None: all
    matcher: str = NEAREST
    max_image_px: int | None = None  # points are sought in no larger image; None: in any of this size


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """Medians over the frames of one setting, in milliseconds."""

    setting: Setting
    num_frames: int
    num_matches: float
    inlier_ratio: float
    stages_ms: dict[str, float]
    pair_ms: float  # of the sum over ``PAIR``
    outside_ms: float  # of the sum over ``OUTSIDE``
    total_ms: float  # of the sum over all stages


@dataclass(frozen=True, slots=True)
class Benchmark:
    """All rows, and the machine they hold for."""

    machine: str
    versions: dict[str, str]
    rows: tuple[BenchmarkRow, ...]


@dataclass(slots=True, eq=False)
class _Message:
    """The fields of ``sensor_msgs`` images, as the decoders read them; messages can be changed."""

    data: Any
    format: str = "jpeg"
    encoding: str = "16UC1"
    is_bigendian: bool = False
    height: int = 0
    width: int = 0
    step: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Recorded:
    """A frame as it comes from a camera driver: JPEG images, depth in millimetres."""

    frame: Frame
    image: _Message
    right: _Message | None
    depth: _Message | None

    def decode(self) -> Frame:
        """Make the frame as the live node makes it."""
        frame, image = self.frame, decode_compressed_image(self.image)
        stereo, depth = frame.stereo, frame.depth
        if stereo is not None and self.right is not None:
            stereo = StereoView(decode_compressed_image(self.right), stereo.camera, stereo.right_from_left)
        if depth is not None and self.depth is not None:
            depth = DepthView(decode_depth(self.depth), depth.camera, depth.cam_from_depth)
        return Frame(frame.stamp_ns, image, frame.camera, frame.frame_id, stereo, depth)


class _SomeMatches:
    """Uses a fixed number of another matcher's matches, drawn at random."""

    def __init__(self, matcher: Matcher, num_matches: int) -> None:
        self._matcher = matcher
        self._num_matches = num_matches
        self._rng = np.random.default_rng(0)

    @property
    def name(self) -> str:
        return self._matcher.name

    def extract(self, image: Image, mask: Image | None = None) -> Features:
        return self._matcher.extract(image, mask)

    def match(self, features0: Features, features1: Features) -> Matches:
        matches = self._matcher.match(features0, features1)
        kept = np.sort(self._rng.permutation(len(matches))[: self._num_matches])
        indices = None if matches.indices is None else matches.indices[kept]
        return Matches(matches.points0[kept], matches.points1[kept], matches.scores[kept], indices, matches.layers_run)


def settings() -> list[Setting]:
    """Both extractors at three sizes, with the networks that ship, and all modalities; on one core and on two."""
    found = []
    for cores in range(1, min(2, os.cpu_count() or 1) + 1):
        for extractor in ("sift", "orb"):
            found += [Setting(cores, extractor, size, Modality.MONO, None) for size in (512, 1024, 2048)]
            if find_shipped_graphs(shipped_name(extractor)) is not None:
                found += [Setting(cores, extractor, size, Modality.MONO, None, LIGHTGLUE) for size in (512, 1024)]
        found.append(Setting(cores, "sift", 512, Modality.MONO, None, LIGHTGLUE, 320))  # config/fast.yaml
        found += [Setting(cores, "sift", 4 * NUM_MATCHES, modality, NUM_MATCHES) for modality in Modality]
    return found


def run_benchmark(
    chosen: list[Setting] | None = None, *, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> Benchmark:
    """Measure the chosen settings, or all.

    Starts processes that import the main module again: a script that calls this needs the usual
    ``if __name__ == "__main__"``.
    """
    chosen, machine = settings() if chosen is None else chosen, machine_line()
    recordings = {modality: _record(modality) for modality in {setting.modality for setting in chosen}}
    rows: list[BenchmarkRow] = []
    for cores in sorted({setting.cores for setting in chosen}):
        with limited_process(cores) as pool:
            for setting in (setting for setting in chosen if setting.cores == cores):
                on_progress(len(rows), len(chosen))
                rows.append(pool.submit(measure, setting, recordings[setting.modality]).result())
    on_progress(len(rows), len(chosen))
    packages = ("numpy", "poselib")
    versions = {"python": platform.python_version(), "opencv": cv2.__version__}
    return Benchmark(machine, versions | {name: version(name) for name in packages}, tuple(rows))


def measure(setting: Setting, recording: list[_Recorded]) -> BenchmarkRow:
    """Run the front-end over a recording, in this very process.

    Raises:
        MatcherError: the setting finds too few matches to be measured.
    """
    values = {
        "extractor.name": setting.extractor,
        "extractor.max_keypoints": setting.max_keypoints,
        **({} if setting.max_image_px is None else {"extractor.max_image_px": setting.max_image_px}),
        "matcher.name": setting.matcher,
        "matcher.num_threads": setting.cores,
        "keyframes.match_every_frame": True,
        "keyframes.min_parallax_px": 0.0,  # every frame that is matched becomes the keyframe
    }
    config = override(FrontEndConfig(), values)
    matcher = create_matcher(config)
    front_end = FrontEnd(config, matcher if setting.num_matches is None else _SomeMatches(matcher, setting.num_matches))
    measured: list[tuple[FrontEndResult, dict[str, float]]] = []
    for recorded in recording:
        timer = StageTimer()
        with timer.stage("decode"):
            frame = recorded.decode()
        result = front_end.process(frame)
        if result.status is Status.OK:
            measured.append((result, {**dict.fromkeys(STAGES, 0.0), **timer.stages_ms, **result.stages_ms}))
    if len(measured) <= _WARM_UP:
        raise MatcherError(f"{setting.max_keypoints} keypoints give poses for {len(measured)} frames: use more.")
    return _summarize(setting, measured[_WARM_UP:])


def _summarize(setting: Setting, measured: list[tuple[FrontEndResult, dict[str, float]]]) -> BenchmarkRow:
    results, times = [result for result, _ in measured], [stages for _, stages in measured]
    return BenchmarkRow(
        setting=setting,
        num_frames=len(measured),
        num_matches=_median([0 if result.matches is None else len(result.matches) for result in results]),
        inlier_ratio=_median([0.0 if result.inliers is None else float(result.inliers.mean()) for result in results]),
        stages_ms={stage: _median([stages[stage] for stages in times]) for stage in STAGES},
        pair_ms=_median([sum(stages[stage] for stage in PAIR) for stages in times]),
        outside_ms=_median([sum(stages[stage] for stage in OUTSIDE) for stages in times]),
        total_ms=_median([sum(stages.values()) for stages in times]),
    )


def benchmark_table(benchmark: Benchmark) -> tuple[list[str], list[tuple[str, ...]]]:
    """Header and rows, in milliseconds, pairs a second by what ``PAIR`` takes, and the speed-up over one core."""
    header = ["", "cores", "keypoints", "matches", *STAGES, "outside", "total", "pairs/s", "speed-up"]
    single = {replace(row.setting, cores=1): row.total_ms for row in benchmark.rows if row.setting.cores == 1}
    rows = []
    for row in benchmark.rows:
        setting, alone = row.setting, single.get(replace(row.setting, cores=1))
        cells = [_named(setting), str(setting.cores)]
        cells += [str(setting.max_keypoints), f"{row.num_matches:.0f}"]
        cells += [f"{row.stages_ms[stage]:.1f}" for stage in STAGES]
        cells += [f"{row.outside_ms:.1f}", f"{row.total_ms:.1f}", f"{1e3 / row.pair_ms:.1f}"]
        rows.append((*cells, f"{alone / row.total_ms:.2f}" if alone else ""))
    return header, rows


def _named(setting: Setting) -> str:
    words = [setting.extractor, setting.modality.value.lower()]
    words += [] if setting.matcher == NEAREST else [setting.matcher]
    return " ".join(words + ([] if setting.max_image_px is None else [f"{setting.max_image_px} px"]))


def write_benchmark(benchmark: object, path: Path) -> None:
    """Write everything as JSON.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_json(benchmark), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror}): choose another --output.") from error


def _record(modality: Modality) -> list[_Recorded]:
    """Frames of the demo; a single camera is the left one of the stereo pair, for its lens that distorts."""
    source = Modality.STEREO if modality is Modality.MONO else modality
    frames = demo_frames(source, width=_WIDTH, rate_hz=_RATE_HZ)
    chosen = (frame for frame, _ in islice(frames, _FRAMES.start, _FRAMES.stop))
    return [_recorded(replace(frame, stereo=None) if modality is Modality.MONO else frame) for frame in chosen]


def _recorded(frame: Frame) -> _Recorded:
    depth = None
    if frame.depth is not None:
        values = np.nan_to_num(frame.depth.depth_m * np.float32(MILLIMETRES)).astype(np.uint16)
        height, width = values.shape
        depth = _Message(values.view(np.uint8).ravel(), height=height, width=width, step=2 * width)
    right = None if frame.stereo is None else _Message(_jpeg(frame.stereo.image))
    return _Recorded(frame, _Message(_jpeg(frame.image)), right, depth)


def _jpeg(image: Image) -> bytes:
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1])


def _median(values: list[float] | list[int]) -> float:
    return float(np.median(values))
