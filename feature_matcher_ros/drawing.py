"""Pictures of matches for people to look at."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Image, Matches
from feature_matcher_ros.images import to_grey

Colours = NDArray[np.uint8]  # (M, 3), BGR

_GAP_PX = 4
_OUTLIER_COLOUR = (60, 60, 255)  # BGR
_WORST_COLOUR = (255, 150, 40)
_BEST_COLOUR = (60, 255, 190)
_OUTLIER_OPACITY = 0.4
_LINE_OPACITY = (0.35, 0.8)  # with many and with few lines
_FEW_LINES = 100
_BACKGROUND_SHADE = 0.75  # darker and grey, so that coloured lines stand out
_FRACTION_BITS = 4  # OpenCV draws at sixteenths of a pixel
_PIXELS_PER_STROKE = 720  # image height for which lines are one pixel wide
_CAPTION_SHADE = 0.35


def draw_matches(
    image0: Image,
    image1: Image,
    matches: Matches,
    *,
    inliers: NDArray[np.bool_] | None = None,
    caption: str = "",
) -> Image:
    """Both images side by side, BGR, with a line for each match.

    Lines go from blue to green with the score; matches that are not ``inliers`` (M,) are faint and red. The images
    are shown in grey.
    """
    picture, offset = _side_by_side(image0, image1)
    stroke = max(1, round(picture.shape[0] / _PIXELS_PER_STROKE))
    ends0 = matches.points0.astype(np.float64)
    ends1 = matches.points1.astype(np.float64) + np.array([offset, 0.0])
    colours = _colours_of_scores(matches.scores)
    good = np.ones(len(matches), dtype=bool) if inliers is None else np.asarray(inliers, dtype=bool)
    colours[~good] = _OUTLIER_COLOUR
    opacity = float(np.clip(_FEW_LINES / max(len(matches), 1), *_LINE_OPACITY))
    picture = _with_lines(picture, ends0[~good], ends1[~good], colours[~good], stroke, _OUTLIER_OPACITY)
    picture = _with_lines(picture, ends0[good], ends1[good], colours[good], stroke, opacity)
    _draw_dots(picture, np.concatenate([ends0[good], ends1[good]]), np.tile(colours[good], (2, 1)), stroke)
    if caption:
        _draw_caption(picture, caption)
    return picture


def _side_by_side(image0: Image, image1: Image) -> tuple[Image, int]:
    """A canvas with both images, top edges aligned, and the column at which the second begins."""
    grey0, grey1 = to_grey(image0), to_grey(image1)
    offset = grey0.shape[1] + _GAP_PX
    canvas = np.zeros((max(len(grey0), len(grey1)), offset + grey1.shape[1]), dtype=np.uint8)
    canvas[: len(grey0), : grey0.shape[1]] = cv2.convertScaleAbs(grey0, alpha=_BACKGROUND_SHADE)
    canvas[: len(grey1), offset:] = cv2.convertScaleAbs(grey1, alpha=_BACKGROUND_SHADE)
    return np.asarray(cv2.cvtColor(canvas, cv2.COLOR_GRAY2BGR), dtype=np.uint8), offset


def _colours_of_scores(scores: NDArray[np.float32]) -> Colours:
    share = np.clip(scores, 0.0, 1.0).astype(np.float64)[:, None]
    return np.round((1.0 - share) * _WORST_COLOUR + share * _BEST_COLOUR).astype(np.uint8)


def _with_lines(
    picture: Image,
    ends0: NDArray[np.float64],
    ends1: NDArray[np.float64],
    colours: Colours,
    stroke: int,
    opacity: float,
) -> Image:
    if len(ends0) == 0:
        return picture
    overlay = picture.copy()
    for end0, end1, colour in zip(_fixed_point(ends0), _fixed_point(ends1), colours.tolist(), strict=True):
        cv2.line(overlay, end0, end1, colour, stroke, cv2.LINE_AA, _FRACTION_BITS)
    return np.asarray(cv2.addWeighted(overlay, opacity, picture, 1.0 - opacity, 0.0), dtype=np.uint8)


def _draw_dots(picture: Image, centres: NDArray[np.float64], colours: Colours, stroke: int) -> None:
    radius = 2 * stroke << _FRACTION_BITS
    for centre, colour in zip(_fixed_point(centres), colours.tolist(), strict=True):
        cv2.circle(picture, centre, radius, colour, -1, cv2.LINE_AA, _FRACTION_BITS)


def _fixed_point(points: NDArray[np.float64]) -> list[list[int]]:
    return np.round(points * (1 << _FRACTION_BITS)).astype(int).tolist()


def _draw_caption(picture: Image, caption: str) -> None:
    """Write white text on a darkened strip at the bottom, as large as fits into the width."""
    height, width = picture.shape[:2]
    font, margin = cv2.FONT_HERSHEY_SIMPLEX, 8
    scale = max(0.4, height / 900)
    (text_width, _), _ = cv2.getTextSize(caption, font, scale, 1)
    scale *= min(1.0, (width - 2 * margin) / max(text_width, 1))
    (_, text_height), baseline = cv2.getTextSize(caption, font, scale, 1)
    top = max(0, height - text_height - baseline - 2 * margin)
    picture[top:] = (picture[top:] * _CAPTION_SHADE).astype(np.uint8)
    cv2.putText(picture, caption, (margin, height - baseline - margin), font, scale, (255, 255, 255), 1, cv2.LINE_AA)
