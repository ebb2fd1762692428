"""A recording for the rerun viewer: image, correspondences, camera path, numbers over time."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np

from feature_matcher_ros.datatypes import Frame, FrontEndResult, Matches, Odometry
from feature_matcher_ros.errors import OutputError

_INLIER_COLOR, _OUTLIER_COLOR = (60, 200, 90), (220, 70, 60)
# Of the segments in turn; rerun would give each piece of a path its own.
_PATH_COLORS = ((90, 150, 240), (240, 170, 60), (170, 110, 230), (80, 200, 190))
_MAX_PIECE = 50  # places in one piece of the path


class RerunRecording:
    """Writes an ``.rrd`` file; needs the optional package ``rerun-sdk``.

    Raises:
        OutputError: ``rerun-sdk`` is not installed, or the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            import rerun  # an optional dependency: imported where it is asked for
        except ImportError as error:
            raise OutputError(
                "a rerun recording was asked for but rerun-sdk is not installed: "
                "pip install 'feature_matcher_ros[rerun]'."
            ) from error
        self._rerun = rerun
        self._stream = rerun.RecordingStream("feature_matcher_ros")
        try:
            self._stream.save(path)
        except (OSError, RuntimeError) as error:
            raise OutputError(f"cannot write {path} ({error}): choose another --output.") from error
        self._stream.log("world", rerun.ViewCoordinates.RDF, static=True)
        self._piece: list[list[float]] = []
        self._piece_number = 0
        self._segment: int | None = None

    def __enter__(self) -> RerunRecording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.flush()
        self._stream.disconnect()

    def write(self, frame: Frame, result: FrontEndResult) -> None:
        self._stream.set_time("stamp", timestamp=np.datetime64(frame.stamp_ns, "ns"))
        color_model = None if frame.image.ndim == 2 else "BGR"
        self._stream.log("world/camera/image", self._rerun.Image(frame.image, color_model=color_model).compress())
        if result.matches is not None and result.inliers is not None:
            self._log_flow(result.matches, result.inliers)
        if result.odometry is not None:
            self._log_place(frame, result.odometry)
        self._log_numbers(result)

    def _log_flow(self, matches: Matches, inliers: np.ndarray) -> None:
        """Draw each correspondence as the line its point has moved since the keyframe."""
        lines = np.stack([matches.points0, matches.points1], axis=1)
        colors = np.where(inliers[:, None], _INLIER_COLOR, _OUTLIER_COLOR).astype(np.uint8)
        self._stream.log("world/camera/image/matches", self._rerun.LineStrips2D(lines, colors=colors))

    def _log_place(self, frame: Frame, odometry: Odometry) -> None:
        pose = odometry.world_from_cam
        rerun, camera = self._rerun, frame.camera
        self._stream.log("world/camera", rerun.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
        self._stream.log(
            "world/camera/image", rerun.Pinhole(image_from_camera=camera.K, width=camera.width, height=camera.height)
        )
        self._log_path(odometry.segment, pose[:3, 3].tolist())

    def _log_path(self, segment: int, place: list[float]) -> None:
        """Draw the path in pieces that join: what is logged replaces, and so has to repeat, only the newest one."""
        if segment != self._segment:
            self._segment, self._piece_number, self._piece = segment, 0, []
        elif len(self._piece) == _MAX_PIECE:
            self._piece_number, self._piece = self._piece_number + 1, self._piece[-1:]
        self._piece.append(place)
        strip = self._rerun.LineStrips3D([self._piece], colors=_PATH_COLORS[segment % len(_PATH_COLORS)])
        self._stream.log(f"world/path/{segment}/{self._piece_number}", strip)

    def _log_numbers(self, result: FrontEndResult) -> None:
        self._stream.log(
            "status", self._rerun.TextLog(f"{result.status.value} {result.motion_type.value} {result.state.value}")
        )
        numbers = {f"time_ms/{stage}": value for stage, value in result.stages_ms.items()}
        if result.inliers is not None:
            numbers |= {
                "matches/inliers": float(np.count_nonzero(result.inliers)),
                "matches/all": float(len(result.inliers)),
            }
        for name, value in numbers.items():
            self._stream.log(name, self._rerun.Scalars(value))
