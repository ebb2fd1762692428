"""Correspondences as ``sensor_msgs/PointCloud2``: one point per match, readable by every cloud tool.

=====================  ========  =====================================================================
field                  type      meaning
=====================  ========  =====================================================================
x, y, z                float32   unit ray of the point in the current frame, in its optical axes (header)
x0, y0                 float32   pixel in the keyframe, original image, centre of the first pixel (0, 0)
x1, y1                 float32   pixel in the current frame
score                  float32   quality of the match in [0, 1]
track_id               uint32    the same for the same point across keyframes; 0 without a track
keyframe_sec           uint32    time of the keyframe's image
keyframe_nanosec       uint32
inlier                 uint8     1 if the match agrees with the relative pose
=====================  ========  =====================================================================

A point takes 48 bytes, little-endian; the last three are padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Camera, FrontEndResult, Matches
from feature_matcher_ros.errors import SourceError
from feature_matcher_ros.geometry import normalize_points, to_rays
from feature_matcher_ros.ros.messages import MessageFactory, make_header, stamp_ns_of

_FLOATS = ("x", "y", "z", "x0", "y0", "x1", "y1", "score")
_INTEGERS = ("track_id", "keyframe_sec", "keyframe_nanosec")
POINT = np.dtype(
    {
        "names": [*_FLOATS, *_INTEGERS, "inlier"],
        "formats": ["<f4"] * len(_FLOATS) + ["<u4"] * len(_INTEGERS) + ["u1"],
        "offsets": list(range(0, 48, 4)),
        "itemsize": 48,
    }
)
# PointField's numbers for types, and their numpy names without the byte order.
_TYPE_NAMES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
_TYPE_NUMBERS = {name: number for number, name in _TYPE_NAMES.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Correspondences:
    """What one cloud says."""

    stamp_ns: int
    frame_id: str
    keyframe_stamp_ns: int | None  # None if there is no match
    matches: Matches  # without keypoint numbers
    rays: NDArray[np.float32]  # (M, 3), unit
    inliers: NDArray[np.bool_]  # (M,)
    track_ids: NDArray[np.uint32]  # (M,), 0 without a track


def cloud_from_result(make: MessageFactory, result: FrontEndResult, camera: Camera) -> Any:
    """Build the cloud of one result that has matches; ``camera`` is that of the current frame."""
    assert result.matches is not None and result.inliers is not None and result.keyframe_stamp_ns is not None
    points = np.zeros(len(result.matches), POINT)
    rays = to_rays(normalize_points(result.matches.points1, camera))
    for name, values in zip(_FLOATS, _float_columns(result.matches, rays), strict=True):
        points[name] = values
    points["track_id"] = 0 if result.track_ids is None else result.track_ids
    points["keyframe_sec"], points["keyframe_nanosec"] = divmod(result.keyframe_stamp_ns, 1_000_000_000)
    points["inlier"] = result.inliers
    return make(
        "sensor_msgs/msg/PointCloud2",
        header=make_header(make, result.stamp_ns, result.frame_id),
        height=1,
        width=len(points),
        fields=[_make_field(make, name) for name in POINT.names or ()],
        is_bigendian=False,
        point_step=POINT.itemsize,
        row_step=points.nbytes,
        data=points.view(np.uint8).reshape(-1),
        is_dense=True,
    )


def correspondences_from_cloud(cloud: Any) -> Correspondences:
    """Read a cloud back; the fields may lie in any order, beside others.

    Raises:
        SourceError: a field is missing, or the data is too short.
    """
    points = _points_of(cloud)
    missing = [name for name in POINT.names or () if name not in (points.dtype.names or ())]
    if missing:
        raise SourceError(f"the cloud has no field '{missing[0]}': it does not hold correspondences.")
    keyframe_stamp_ns = None
    if len(points):
        keyframe_stamp_ns = int(points["keyframe_sec"][0]) * 1_000_000_000 + int(points["keyframe_nanosec"][0])
    columns = {name: np.stack([points[f] for f in fields], axis=1) for name, fields in _MATRICES.items()}
    return Correspondences(
        stamp_ns=stamp_ns_of(cloud.header),
        frame_id=cloud.header.frame_id,
        keyframe_stamp_ns=keyframe_stamp_ns,
        matches=Matches(columns["points0"], columns["points1"], points["score"].copy()),
        rays=columns["rays"],
        inliers=points["inlier"] != 0,
        track_ids=points["track_id"].copy(),
    )


_MATRICES = {"points0": ("x0", "y0"), "points1": ("x1", "y1"), "rays": ("x", "y", "z")}


def _float_columns(matches: Matches, rays: NDArray[np.floating]) -> list[NDArray[np.floating]]:
    return [*rays.T, *matches.points0.T, *matches.points1.T, matches.scores]


def _make_field(make: MessageFactory, name: str) -> Any:
    assert POINT.fields is not None
    kind, offset = POINT.fields[name][:2]
    number = _TYPE_NUMBERS[kind.str[1:]]
    return make("sensor_msgs/msg/PointField", name=name, offset=offset, datatype=number, count=1)


def _points_of(cloud: Any) -> NDArray[np.void]:
    order = ">" if cloud.is_bigendian else "<"
    kind = np.dtype(
        {
            "names": [field.name for field in cloud.fields],
            "formats": [order + _TYPE_NAMES[field.datatype] for field in cloud.fields],
            "offsets": [field.offset for field in cloud.fields],
            "itemsize": cloud.point_step,
        }
    )
    count = cloud.width * cloud.height
    if len(cloud.data) < count * cloud.point_step:
        raise SourceError(
            f"a cloud of {count} points of {cloud.point_step} bytes holds only {len(cloud.data)} bytes: it was cut off."
        )
    return np.frombuffer(cloud.data, kind, count) if count else np.zeros(0, kind)
