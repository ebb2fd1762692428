"""The way of the camera through the demo room, and what is true on each stretch of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Float, MotionType, Trajectory
from feature_matcher_ros.geometry import pose_from, rotation_from_vector

START_NS = 1_700_000_000_000_000_000
# The axes of a camera that looks along x of a world with z up.
_LEVEL_CAMERA = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the recording, and the kind of motion that holds for every pair of its frames."""

    name: str
    start_ns: int
    end_ns: int  # the first stamp that belongs to the next stretch
    motion_type: MotionType  # UNKNOWN where no one kind holds: nothing is seen, or a plane comes into view
    black: bool = False  # the lens is covered


@dataclass(frozen=True, slots=True, eq=False)
class DemoScript:
    """What is true about a demo recording."""

    ground_truth: Trajectory  # world_from_cam of the left or colour camera
    stretches: tuple[Stretch, ...]  # in order, without gaps

    def stretch_at(self, stamp_ns: int) -> Stretch:
        """The stretch that a frame belongs to.

        Raises:
            ValueError: there is no frame at that time.
        """
        for stretch in self.stretches:
            if stretch.start_ns <= stamp_ns < stretch.end_ns:
                return stretch
        raise ValueError(f"stamp {stamp_ns} lies outside the recording: take one of ground_truth.stamps_ns.")

    def motion_type(self, stamp0_ns: int, stamp1_ns: int) -> MotionType:
        """The motion between two frames; UNKNOWN unless both lie on one stretch on which one kind holds."""
        stretch = self.stretch_at(stamp0_ns)
        return stretch.motion_type if stretch == self.stretch_at(stamp1_ns) else MotionType.UNKNOWN


@dataclass(frozen=True, slots=True)
class _Leg:
    """The way to the next place, from standstill to standstill, and what holds on the way there."""

    name: str
    motion_type: MotionType
    duration_s: float
    position: tuple[float, float, float]  # at its end, metres
    yaw_pitch_roll_deg: tuple[float, float, float]  # at its end; left, down and clockwise are positive
    bow_m: tuple[float, float, float] = (0.0, 0.0, 0.0)  # how far the middle lies off the straight line
    black: bool = False


_START = _Leg("start", MotionType.UNKNOWN, 0.0, (0.9, 0.8, 1.35), (30.0, 6.0, 0.0))
_LEGS = (
    _Leg("general", MotionType.GENERAL, 3.2, (2.75, 1.7, 1.3), (34.0, 7.0, 1.0), bow_m=(0.15, -0.35, 0.2)),
    _Leg("rotation only", MotionType.ROTATION_ONLY, 1.4, (2.75, 1.7, 1.3), (66.0, 1.0, -2.0)),
    _Leg("to the wall", MotionType.UNKNOWN, 1.6, (2.1, 2.8, 1.35), (90.0, 0.0, 0.0)),
    _Leg("planar", MotionType.PLANAR, 2.0, (3.7, 2.9, 1.4), (85.0, 0.0, 2.0), bow_m=(0.0, -0.1, 0.05)),
    _Leg("static", MotionType.STATIC, 1.0, (3.7, 2.9, 1.4), (85.0, 0.0, 2.0)),
    _Leg("from the wall", MotionType.UNKNOWN, 1.8, (2.5, 2.2, 1.35), (30.0, 6.0, 0.0)),
    _Leg("black-out", MotionType.UNKNOWN, 0.6, (2.35, 2.1, 1.4), (36.0, 7.0, 2.0), black=True),
    _Leg("recovery", MotionType.GENERAL, 1.8, (1.2, 1.1, 1.4), (30.0, 6.0, 0.0), bow_m=(0.0, 0.2, 0.0)),
)


def demo_script(rate_hz: float) -> DemoScript:
    """The path of the demo, sampled at a frame rate."""
    ends_ns = START_NS + np.rint(1e9 * np.cumsum([0.0, *(leg.duration_s for leg in _LEGS)])).astype(np.int64)
    bounds = zip(_LEGS, ends_ns[:-1].tolist(), ends_ns[1:].tolist(), strict=True)
    stretches = tuple(Stretch(leg.name, start, end, leg.motion_type, leg.black) for leg, start, end in bounds)
    num_frames = int(np.ceil((ends_ns[-1] - START_NS) * 1e-9 * rate_hz - 1e-6))
    stamps = START_NS + np.rint(np.arange(num_frames) * 1e9 / rate_hz).astype(np.int64)
    poses = np.stack([_pose_at(stamp, ends_ns) for stamp in stamps])
    return DemoScript(Trajectory(stamps, poses), stretches)


def _pose_at(stamp_ns: np.int64, ends_ns: NDArray[np.int64]) -> Float:
    """world_from_cam at a time on one of the legs, which meet at ``ends_ns``."""
    number = int(np.searchsorted(ends_ns, stamp_ns, side="right")) - 1
    share = float(stamp_ns - ends_ns[number]) / float(ends_ns[number + 1] - ends_ns[number])
    return _pose_on(_LEGS[number - 1] if number else _START, _LEGS[number], share)


def _pose_on(before: _Leg, leg: _Leg, share: float) -> Float:
    # The quintic that starts and ends at rest, without acceleration; where nothing changes from one
    # place to the next it adds an exact zero, so that a camera that stands does stand.
    progress = share**3 * (10.0 - 15.0 * share + 6.0 * share**2)
    bow = 4.0 * progress * (1.0 - progress) * np.array(leg.bow_m)
    position = _between(before.position, leg.position, progress) + bow
    yaw, pitch, roll = np.radians(_between(before.yaw_pitch_roll_deg, leg.yaw_pitch_roll_deg, progress))
    turns = (np.array([0.0, 0.0, yaw]), np.array([0.0, pitch, 0.0]), np.array([roll, 0.0, 0.0]))
    rotation = np.linalg.multi_dot([*(rotation_from_vector(turn) for turn in turns), _LEVEL_CAMERA])
    return pose_from(rotation, position)


def _between(start: tuple[float, ...], end: tuple[float, ...], progress: float) -> NDArray[np.float64]:
    return np.array(start) + progress * (np.array(end) - np.array(start))
