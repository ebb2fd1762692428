"""``visualization_msgs/MarkerArray``: the camera as a pyramid, the keyframes as dots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from feature_matcher_ros.datatypes import Camera, Float
from feature_matcher_ros.ros.messages import MessageFactory, make_header, make_pose, make_vector

_LINE_LIST, _POINTS = 5, 8  # Marker.type
_DEPTH_M = 0.25  # of the pyramid
_LINE_M, _DOT_M = 0.012, 0.04
_CAMERA_COLOUR, _KEYFRAME_COLOUR = (1.0, 1.0, 1.0), (1.0, 0.65, 0.1)


def marker_message(
    make: MessageFactory,
    stamp_ns: int,
    odom_frame_id: str,
    odom_from_cam: Float,
    camera: Camera,
    keyframes: Sequence[Float],
) -> Any:
    """The camera at ``odom_from_cam`` (4, 4), and its keyframes, likewise; without any, the dots stay as they are."""
    header = make_header(make, stamp_ns, odom_frame_id)
    corners = _pyramid(camera)
    tip = np.zeros(3)
    lines = [end for corner in corners for end in (tip, corner)]
    lines += [end for index in range(4) for end in (corners[index], corners[(index + 1) % 4])]
    markers = [_marker(make, header, "camera", _LINE_LIST, odom_from_cam, _LINE_M, _CAMERA_COLOUR, lines)]
    if keyframes:
        dots = [pose[:3, 3] for pose in keyframes]
        markers.append(_marker(make, header, "keyframes", _POINTS, np.eye(4), _DOT_M, _KEYFRAME_COLOUR, dots))
    return make("visualization_msgs/msg/MarkerArray", markers=markers)


def _pyramid(camera: Camera) -> list[Float]:
    """The corners of the image, some centimetres before the camera; its lens is left out."""
    right, bottom = camera.width - 1.0, camera.height - 1.0
    corners = np.array([[0, 0, 1], [right, 0, 1], [right, bottom, 1], [0, bottom, 1]])
    return list(_DEPTH_M * corners @ np.linalg.inv(camera.K).T)


def _marker(
    make: MessageFactory,
    header: Any,
    name: str,
    kind: int,
    pose: Float,
    width_m: float,
    colour: tuple[float, float, float],
    points: Sequence[Float],
) -> Any:
    return make(
        "visualization_msgs/msg/Marker",
        header=header,
        ns=name,
        id=0,
        type=kind,
        action=0,
        pose=make_pose(make, pose),
        scale=make_vector(make, [width_m, width_m, 0.0]),
        color=make("std_msgs/msg/ColorRGBA", **dict(zip("rgba", (*colour, 1.0), strict=True))),
        lifetime=make("builtin_interfaces/msg/Duration", sec=0, nanosec=0),
        frame_locked=False,
        points=[make("geometry_msgs/msg/Point", **dict(zip("xyz", map(float, p), strict=True))) for p in points],
        colors=[],
        **_without_texture(make),
    )


def _without_texture(make: MessageFactory) -> dict[str, Any]:
    """The fields of meshes, empty."""
    nothing, header = np.zeros(0, np.uint8), make_header(make, 0, "")
    return {
        "texture_resource": "",
        "texture": make("sensor_msgs/msg/CompressedImage", header=header, format="", data=nothing),
        "uv_coordinates": [],
        "text": "",
        "mesh_resource": "",
        "mesh_file": make("visualization_msgs/msg/MeshFile", filename="", data=nothing),
        "mesh_use_embedded_materials": False,
    }
