"""Frames connected by /tf, against poses that are known in the world."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from feature_matcher_ros.datatypes import Float
from feature_matcher_ros.evaluation.bag_transforms import TransformTree
from feature_matcher_ros.geometry import invert_pose, pose_from, quaternion_from_rotation, rotation_from_vector


def edge(parent: str, child: str, parent_from_child: Float, stamp_ns: int = 0) -> Any:
    x, y, z = parent_from_child[:3, 3]
    q = dict(zip("xyzw", quaternion_from_rotation(parent_from_child[:3, :3]), strict=True))
    transform = SimpleNamespace(translation=SimpleNamespace(x=x, y=y, z=z), rotation=SimpleNamespace(**q))
    stamp = SimpleNamespace(sec=0, nanosec=stamp_ns)
    return SimpleNamespace(
        header=SimpleNamespace(frame_id=parent, stamp=stamp), child_frame_id=child, transform=transform
    )


def random_pose(random: np.random.Generator) -> Float:
    return pose_from(rotation_from_vector(random.normal(size=3)), random.normal(size=3))


@pytest.mark.parametrize("seed", range(5))
def test_any_two_frames_of_a_tree(seed: int) -> None:
    random = np.random.default_rng(seed)
    world_from = {f"f{number}": random_pose(random) for number in range(12)}
    tree = TransformTree()
    for number in range(1, 12):
        parent, child = f"f{random.integers(number)}", f"f{number}"
        tree.add([edge(f"/{parent}", child, invert_pose(world_from[parent]) @ world_from[child])])
    for target in world_from:
        for source in world_from:
            found = tree.fixed_transform(target, f"/{source}")
            np.testing.assert_allclose(found, invert_pose(world_from[target]) @ world_from[source], atol=1e-9)
    assert tree.fixed_transform("f0", "stranger") is None
    assert tree.fixed_transform("", "") is None and tree.fixed_transform("f0", "") is None


def test_a_chain_of_two_moving_frames() -> None:
    """odom turns slowly and is known seldom, the base moves and is known often; the camera is fixed to it."""
    mount = random_pose(np.random.default_rng(0))

    def world_from_odom(t: float) -> Float:
        return pose_from(rotation_from_vector([0, 0, 0.5 * t]), [t, 0, 0])

    def odom_from_base(t: float) -> Float:
        return pose_from(rotation_from_vector([0.3 * t, 0, 0]), [0, t, 2 * t])

    tree = TransformTree()
    tree.add([edge("base", "camera", mount)])
    for number in range(10):
        tree.add([edge("world", "odom", world_from_odom(number / 10), number * 100_000_000)])
    for number in range(60):
        tree.add([edge("odom", "base", odom_from_base(number / 50), number * 20_000_000)])
    trajectory = tree.trajectory("camera")
    assert trajectory is not None and len(trajectory) == 46  # up to the last pose of odom: nothing is extrapolated
    for stamp_ns, pose in zip(trajectory.stamps_ns, trajectory.world_from_cam, strict=True):
        t = stamp_ns / 1e9
        np.testing.assert_allclose(pose, world_from_odom(t) @ odom_from_base(t) @ mount, atol=1e-9)


def test_what_never_moves_has_no_trajectory() -> None:
    tree = TransformTree()
    for number in range(3):
        tree.add([edge("world", "camera", np.eye(4), number)])
    assert tree.trajectory("camera") is None
    assert tree.trajectory("stranger") is None


def at(x: float) -> Float:
    return pose_from(np.eye(3), [x, 0.0, 0.0])


def test_the_newest_fixed_transform_counts() -> None:
    tree = TransformTree()
    for x in (1.0, 2.0):
        tree.add([edge("base", "camera", at(x))], are_fixed=True)
    np.testing.assert_array_equal(tree.fixed_transform("base", "camera"), at(2.0))
    tree.add([edge("mast", "camera", at(0.1)), edge("base", "mast", at(0.5))], are_fixed=True)
    np.testing.assert_array_equal(tree.fixed_transform("mast", "camera"), at(0.1))
    np.testing.assert_allclose(tree.fixed_transform("base", "camera"), at(0.6))


def test_poses_in_another_parent_are_no_part_of_a_trajectory() -> None:
    tree = TransformTree()
    tree.add([edge("elsewhere", "camera", at(99.0 + number), number) for number in range(3)])
    tree.add([edge("world", "camera", at(float(number)), 10 + number) for number in range(3)])
    trajectory = tree.trajectory("camera")
    assert trajectory is not None
    assert trajectory.world_from_cam[:, 0, 3].tolist() == [0.0, 1.0, 2.0]


def test_a_ring_and_a_broken_rotation_do_no_harm() -> None:
    tree = TransformTree()
    tree.add([edge("a", "b", np.eye(4)), edge("b", "a", np.eye(4))])
    assert tree.chain_to_root("a") == ["a", "b"]
    broken = edge("world", "c", np.eye(4))
    broken.transform.rotation.w = 0.0
    tree.add([broken])
    assert tree.chain_to_root("c") == ["c"]
