"""A video of the matches, one picture per matched pair."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import cv2

from feature_matcher_ros.datatypes import Frame, FrontEndResult, Image
from feature_matcher_ros.drawing import draw_matches
from feature_matcher_ros.errors import OutputError

_RATE_HZ = 10.0
_KEPT_KEYFRAMES = 10  # as many as a lost camera may return to


class MatchVideo:
    """Writes an MP4 file; frames that were not matched are left out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: cv2.VideoWriter | None = None
        self._keyframes: dict[int, Image] = {}

    def __enter__(self) -> MatchVideo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.release()

    def write(self, frame: Frame, result: FrontEndResult) -> None:
        if result.matches is not None and result.keyframe_stamp_ns in self._keyframes:
            keyframe = self._keyframes[result.keyframe_stamp_ns]
            caption = f"{len(result.matches)} matches, {result.status.value}, {result.motion_type.value}"
            picture = draw_matches(keyframe, frame.image, result.matches, inliers=result.inliers, caption=caption)
            self._open(picture).write(picture)
        if result.is_keyframe:
            self._keyframes[result.stamp_ns] = frame.image
            for stamp_ns in list(self._keyframes)[:-_KEPT_KEYFRAMES]:
                del self._keyframes[stamp_ns]

    def _open(self, picture: Image) -> cv2.VideoWriter:
        if self._writer is None:
            height, width = picture.shape[:2]
            self._writer = cv2.VideoWriter(str(self._path), cv2.VideoWriter.fourcc(*"mp4v"), _RATE_HZ, (width, height))
            if not self._writer.isOpened():
                raise OutputError(f"cannot write the video {self._path}: check that the folder can be written to.")
        return self._writer
