"""Reads ~/correspondences with rclpy: prints track, keyframe's pixel and current pixel of every inlier."""

import rclpy
from sensor_msgs.msg import PointCloud2

from feature_matcher_ros.ros.correspondences import correspondences_from_cloud


def on_cloud(cloud: PointCloud2) -> None:
    found = correspondences_from_cloud(cloud)  # stamp_ns, keyframe_stamp_ns, matches, rays, inliers, track_ids
    points0, points1 = found.matches.points0[found.inliers], found.matches.points1[found.inliers]
    for track, (x0, y0), (x1, y1) in zip(found.track_ids[found.inliers], points0, points1, strict=True):
        print(f"{track}: {x0:.1f} {y0:.1f} -> {x1:.1f} {y1:.1f}", flush=True)


rclpy.init()
node = rclpy.create_node("python_consumer")
node.create_subscription(PointCloud2, "/feature_matcher/correspondences", on_cloud, 10)
rclpy.spin(node)
