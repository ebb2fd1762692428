"""The pairs that went worst, drawn: the images from the source, the correspondences from the run's bag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2

from feature_matcher_ros.datatypes import Image
from feature_matcher_ros.drawing import draw_matches
from feature_matcher_ros.errors import FeatureMatcherError, SourceError
from feature_matcher_ros.evaluation.evaluate import RunEvaluation
from feature_matcher_ros.evaluation.pair_accuracy import PairError
from feature_matcher_ros.evaluation.pair_table import PairRow
from feature_matcher_ros.evaluation.run_folder import RunFolder, RunInfo
from feature_matcher_ros.evaluation.sequences import open_sequence
from feature_matcher_ros.evaluation.topic_bag import read_correspondences
from feature_matcher_ros.ros.correspondences import Correspondences

_JPEG_QUALITY = 82
_MAX_WIDTH_PX = 1600


@dataclass(frozen=True, slots=True, eq=False)
class DrawnPair:
    """One pair as a picture."""

    jpeg: bytes
    caption: str


@dataclass(frozen=True, slots=True, eq=False)
class WorstPairs:
    """The pictures, and what they show or why there are none."""

    pairs: tuple[DrawnPair, ...]
    note: str


def draw_worst_pairs(evaluation: RunEvaluation, count: int = 4) -> WorstPairs:
    """Draw the pairs with the largest errors or, without truth, with the smallest share of inliers.

    What stands in the way, such as a source that has been moved, becomes a sentence in ``note``.
    """
    rows = choose_worst_pairs(evaluation, count)
    if not rows:
        return WorstPairs((), "")
    try:
        clouds = _read_clouds(RunFolder(evaluation.folder).topics, rows)
        images = _read_images(evaluation.run, [stamp for cloud in clouds for stamp in _stamps_of(cloud)])
    except FeatureMatcherError as error:
        return WorstPairs((), f"The pairs are not drawn: {error}")
    errors = {error.stamp_ns: error for error in evaluation.series.pair_errors}
    captions = {row.stamp_ns: _caption(row, errors.get(row.stamp_ns)) for row in rows}
    start_ns = evaluation.series.rows[0].stamp_ns
    pairs = [_draw(cloud, images, f"{_when(cloud, start_ns)}: {captions[cloud.stamp_ns]}") for cloud in clouds]
    drawn = tuple(pair for pair in pairs if pair is not None)
    if not drawn:
        return WorstPairs((), "The pairs are not drawn: their images are not in the source any more.")
    chosen = "largest errors" if errors else "smallest share of inliers"
    return WorstPairs(drawn, f"The pairs with the {chosen}; keyframe to the left, current frame to the right.")


def choose_worst_pairs(evaluation: RunEvaluation, count: int) -> list[PairRow]:
    """The matched frames that went worst, the worst one first."""
    matched = [row for row in evaluation.series.rows if row.num_matches]
    badness = {error.stamp_ns: error.badness for error in evaluation.series.pair_errors}
    if badness:
        matched = [row for row in matched if row.stamp_ns in badness]
    return sorted(matched, key=lambda row: (-badness.get(row.stamp_ns, 0.0), row.inlier_ratio or 0.0))[:count]


def _read_clouds(bag: Path, rows: Sequence[PairRow]) -> list[Correspondences]:
    """The correspondences of some frames, in the order of these."""
    if not bag.exists():
        raise SourceError("the run has no folder 'topics' to read correspondences from: replay it with --topics.")
    wanted = {row.stamp_ns for row in rows}
    found = {cloud.stamp_ns: cloud for cloud in read_correspondences(bag) if cloud.stamp_ns in wanted}
    return [found[row.stamp_ns] for row in rows if row.stamp_ns in found]


def _read_images(run: RunInfo, stamps_ns: Sequence[int]) -> dict[int, Image]:
    """Decode the frames of some stamps, and none after the last of them."""
    wanted = set(stamps_ns)
    images: dict[int, Image] = {}
    sequence = open_sequence(Path(run.source), replace(run.source_selection(), color=True))
    for frame in sequence.frames():
        if frame.stamp_ns in wanted:
            images[frame.stamp_ns] = frame.image
        if len(images) == len(wanted):
            break
    return images


def _draw(cloud: Correspondences, images: dict[int, Image], caption: str) -> DrawnPair | None:
    pictures = [images[stamp] for stamp in _stamps_of(cloud) if stamp in images]
    if len(pictures) < 2:
        return None
    picture = draw_matches(pictures[0], pictures[1], cloud.matches, inliers=cloud.inliers)
    height, width = picture.shape[:2]
    if width > _MAX_WIDTH_PX:
        size = (_MAX_WIDTH_PX, round(height * _MAX_WIDTH_PX / width))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return DrawnPair(data.tobytes(), caption)


def _stamps_of(cloud: Correspondences) -> list[int]:
    return [stamp for stamp in (cloud.keyframe_stamp_ns, cloud.stamp_ns) if stamp is not None]


def _when(cloud: Correspondences, start_ns: int) -> str:
    return " to ".join(f"{(stamp - start_ns) / 1e9:.2f} s" for stamp in _stamps_of(cloud))


def _caption(row: PairRow, error: PairError | None) -> str:
    parts = [f"{row.num_inliers} of {row.num_matches} matches are inliers", row.motion_type.value]
    if error is None:
        return ", ".join([*parts, f"status {row.status.value}"])
    parts.append(f"rotation off by {error.rotation_deg:.2f}°")
    if error.direction_deg is not None:
        parts.append(f"direction by {error.direction_deg:.1f}°")
    return ", ".join([*parts, f"true baseline {error.true_baseline_m:.3f} m"])
