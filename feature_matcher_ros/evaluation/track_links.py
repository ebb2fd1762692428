"""The tracks of a run, read from the correspondences that it published."""

from __future__ import annotations

from collections.abc import Iterable

from feature_matcher_ros.evaluation.pair_table import PairRow
from feature_matcher_ros.evaluation.run_folder import RunFolder
from feature_matcher_ros.evaluation.sequences import is_bag
from feature_matcher_ros.evaluation.topic_bag import read_correspondences
from feature_matcher_ros.evaluation.track_quality import KeyframeLink


def keyframe_links(folder: RunFolder, rows: Iterable[PairRow]) -> tuple[KeyframeLink, ...]:
    """The inliers of every keyframe's match with an earlier one; none if the run has no topics.

    Raises:
        SourceError: the bag of the topics cannot be read.
    """
    if not folder.topics.is_dir() or not is_bag(folder.topics):
        return ()
    keyframes = {row.stamp_ns for row in rows if row.is_keyframe}
    links = []
    for found in read_correspondences(folder.topics):
        is_track = found.inliers & (found.track_ids > 0)
        if found.stamp_ns in keyframes and found.keyframe_stamp_ns is not None and is_track.any():
            points = found.matches.points1[is_track]
            links.append(
                KeyframeLink(
                    found.keyframe_stamp_ns, found.stamp_ns, found.track_ids[is_track], found.rays[is_track], points
                )
            )
    return tuple(links)
