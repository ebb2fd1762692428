"""The demo: a camera moves through a rendered room whose truth is known; as frames, or as a ROS 2 bag."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from feature_matcher_ros.datatypes import DepthView, Float, Frame, Image, StereoView
from feature_matcher_ros.evaluation.demo_bag import DemoBag, EncodedFrame, encode_frame
from feature_matcher_ros.evaluation.demo_path import DemoScript, demo_script
from feature_matcher_ros.evaluation.demo_rig import FULL_WIDTH, DemoOptions, demo_rig
from feature_matcher_ros.evaluation.demo_room import demo_room
from feature_matcher_ros.evaluation.scene_renderer import Map, RayGrid, RenderedView, Scene, expose, render_view
from feature_matcher_ros.evaluation.sequences import Modality
from feature_matcher_ros.geometry import invert_pose

DEPTH_RANGE_M = (0.3, 8.0)
_BLACK_LEVEL = 6  # grey level of a covered lens
_TEXELS_PER_M = 300.0  # at full width: walls come as near as 1.5 m, where a pixel covers 1/280 m
_MIN_TEXELS_PER_M = 100.0  # the smallest posters are a few texels wide
_Result = TypeVar("_Result")


class DemoRecording:
    """Renders the frames of the demo, any of them at any time; the same options give the same frames."""

    def __init__(self, options: DemoOptions) -> None:
        self.options = options
        self.rig = demo_rig(options)
        self.script = demo_script(options.rate_hz)
        texels_per_m = max(_MIN_TEXELS_PER_M, _TEXELS_PER_M * options.width / FULL_WIDTH)
        self.quads = demo_room(options.seed, texels_per_m=texels_per_m)
        self._scene = Scene(self.quads, color=options.color)
        self._left = RayGrid(self.rig.left)
        self._right = None if self.rig.right is None else RayGrid(self.rig.right)

    def __len__(self) -> int:
        return len(self.script.ground_truth)

    def frame(self, number: int) -> Frame:
        """Render one frame, with what its modality holds beside the image."""
        truth, camera = self.script.ground_truth, self.rig.left
        rng = np.random.default_rng((self.options.seed, number))
        view = self._view(self._left, number, truth.world_from_cam[number])
        image = self._exposed(view.image, number, rng)
        stereo = depth = None
        if self.options.modality is Modality.STEREO:
            stereo = self._stereo(number, rng)
        elif self.options.modality is Modality.RGBD:
            depth = DepthView(self._sensed_depth(view.depth_m, rng), camera, np.eye(4))
        return Frame(int(truth.stamps_ns[number]), image, camera, self.rig.frame_id, stereo=stereo, depth=depth)

    def _stereo(self, number: int, rng: np.random.Generator) -> StereoView:
        assert self.rig.right is not None and self._right is not None
        world_from_right = self.script.ground_truth.world_from_cam[number] @ invert_pose(self.rig.right_from_left)
        view = self._view(self._right, number, world_from_right)
        return StereoView(self._exposed(view.image, number, rng), self.rig.right, self.rig.right_from_left)

    def _view(self, grid: RayGrid, number: int, world_from_cam: Float) -> RenderedView:
        if not self.script.stretch_at(int(self.script.ground_truth.stamps_ns[number])).black:
            return render_view(self._scene, grid, world_from_cam)
        shape = grid.x.shape
        image = np.full((*shape, 3) if self.options.color else shape, _BLACK_LEVEL, np.uint8)
        return RenderedView(image, np.full(shape, np.nan, np.float32), np.full(shape, -1, np.int16))

    def _exposed(self, image: Image, number: int, rng: np.random.Generator) -> Image:
        """An automatic exposure that wanders slowly, and noise."""
        gain = 1.0 + 0.1 * np.sin(number / self.options.rate_hz)
        return expose(image, rng, gain=gain, noise_sigma=self.options.noise_sigma)

    def _sensed_depth(self, depth_m: Map, rng: np.random.Generator) -> Map:
        """Depth in whole millimetres with noise, NaN outside the range of the sensor."""
        noise = rng.standard_normal(depth_m.shape, dtype=np.float32)
        sensed: Map = (depth_m + np.float32(self.options.depth_noise) * noise * np.square(depth_m)).round(3)
        with np.errstate(invalid="ignore"):
            sensed[~((sensed >= DEPTH_RANGE_M[0]) & (sensed <= DEPTH_RANGE_M[1]))] = np.nan
        return sensed


def demo_frames(
    modality: Modality = Modality.STEREO, *, stride: int = 1, seed: int = 0, width: int = 320, rate_hz: float = 15.0
) -> Iterator[tuple[Frame, Float]]:
    """Frames of the demo with their true ``world_from_cam``, without a bag."""
    recording = DemoRecording(DemoOptions(modality, width=width, rate_hz=rate_hz, seed=seed))
    for number in range(0, len(recording), stride):
        yield recording.frame(number), recording.script.ground_truth.world_from_cam[number]


def write_demo_bag(
    path: Path,
    options: DemoOptions | None = None,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> DemoScript:
    """Write the demo as a ROS 2 bag (MCAP) into the folder ``path``; a demo bag already there is replaced.

    Raises:
        OutputError: something else is there, or the folder cannot be written.
    """
    recording = DemoRecording(options or DemoOptions())

    def encode(number: int) -> EncodedFrame:
        return encode_frame(recording.frame(number))

    with DemoBag(path, recording.rig) as bag:
        poses = recording.script.ground_truth.world_from_cam
        for number, encoded in enumerate(_in_order(encode, range(len(recording)))):
            bag.write(encoded, poses[number])
            on_progress(number + 1, len(recording))
    return recording.script


def _in_order(function: Callable[[int], _Result], items: Iterable[int]) -> Iterator[_Result]:
    """Results in order, computed by a few threads that never run far ahead."""
    num_threads = min(4, os.cpu_count() or 1)
    pending: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 2 * num_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
