"""Robust least squares over all matches: the last step of every estimate, and the source of its covariance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import cv2
import numpy as np

from feature_matcher_ros.datatypes import Float
from feature_matcher_ros.relative_pose.correspondences import Correspondences
from feature_matcher_ros.relative_pose.motion_models import Motion

# Where Tukey's weight reaches zero, in standard deviations of one component, for residuals of 1 and 2
# components: 95 % efficiency under Gaussian noise.
_TUKEY_CUTOFF = {1: 4.685, 2: 5.123}
# Median length of a residual of 1 and 2 components under unit Gaussian noise.
_MEDIAN_LENGTH = {1: 0.6745, 2: 1.1774}
_MAX_STEPS = 10
# Iteration ends when a step lowers the cost, in units of the noise variance, by less than this.
_SMALL_GAIN = 0.1
# A step that promises less than this is taken without a look at where it leads: what it leaves undone is far less.
_UNCHECKED_GAIN = 0.3
# The weights overstate the curvature of the cost, under Gaussian noise by about a sixth: steps fall short by as much.
_STRETCH = 1.2
# A checked step that leaves less than this to the next one is the last, and less than this share of its own promise:
# else the cost is far from the parabola by which that was foretold.
_MAX_LEFT = 0.1
_MAX_LEFT_SHARE = 0.03
_MAX_DAMPING = 1e4


class Movable(Protocol):
    """Anything that a vector of parameters can change."""

    def moved(self, step: Float) -> Movable:
        """Return the state after a small change (k,)."""


State = TypeVar("State", bound=Movable)
MotionState = TypeVar("MotionState", bound=Motion)


@dataclass(frozen=True, slots=True, eq=False)
class Normals:
    """The least-squares problem of one state, linearised."""

    residuals: Float  # (1 or 2, M), pixels
    cost: float  # px²
    information: Float  # (k, k), sum of w JᵀJ
    gradient: Float  # (k,), sum of w Jᵀr


@dataclass(frozen=True, slots=True)
class Loss:
    """Tukey's biweight on the length of a residual: gross errors have no say at all."""

    cutoff_px: float

    def weights(self, length2: Float) -> Float:
        """Weights (M,) in [0, 1] of squared lengths (M,)."""
        return self.weigh(length2)[0]

    def weigh(self, length2: Float) -> tuple[Float, float]:
        """Weights, and the cost summed over all matches, in px²; half of it is that of least squares near zero."""
        inside = np.maximum(1.0 - length2 * (1.0 / self.cutoff_px**2), 0.0)
        weights = inside * inside
        return weights, (len(inside) - float(weights @ inside)) * self.cutoff_px**2 / 3.0


def squared_length(residuals: Float) -> Float:
    """(M,) of residuals (1 or 2, M)."""
    return np.einsum("km,km->m", residuals, residuals)


def robust_sigma(length2: Float, num_components: int, gate_px: float, floor_px: float) -> float:
    """Standard deviation of one component of residuals, from the median of those squared lengths (M,) in the gate."""
    inside = length2[length2 < gate_px**2]
    if len(inside) == 0:
        return gate_px
    middle = len(inside) // 2
    median = float(np.partition(inside, middle)[middle])  # several times faster than np.median
    return max(median**0.5 / _MEDIAN_LENGTH[num_components], floor_px)


def make_loss(sigma_px: float, num_components: int) -> Loss:
    """The loss for noise of ``sigma_px`` in each of 1 or 2 components."""
    return Loss(_TUKEY_CUTOFF[num_components] * sigma_px)


def normals(motion: Motion, matches: Correspondences, loss: Loss | None) -> Normals:
    """Linearise a motion; without a loss all matches have weight 1."""
    residuals, jacobian = motion.linearize(matches)
    length2 = squared_length(residuals)
    weights, cost = (None, float(length2.sum())) if loss is None else loss.weigh(length2)
    return Normals(residuals, cost, *weighted_sums(jacobian, residuals, weights))


def weighted_sums(jacobian: Float, residuals: Float, weights: Float | None) -> tuple[Float, Float]:
    """Sums (k, k) of w JᵀJ and (k,) of w Jᵀr, from derivatives (c, k, M) of residuals (c, M); None: all w are 1."""
    weighted = jacobian if weights is None else jacobian * weights
    information, gradient = weighted[0] @ jacobian[0].T, weighted[0] @ residuals[0]
    if len(jacobian) > 1:
        information += weighted[1] @ jacobian[1].T
        gradient += weighted[1] @ residuals[1]
    return information, gradient


def refine_motion(motion: MotionState, matches: Correspondences, loss: Loss) -> MotionState:
    """Move a motion to the robust optimum nearby."""
    return refine(motion, lambda state, loss: normals(state, matches, loss), loss)


def refine(
    state: State,
    linearize: Callable[[State, Loss], Normals],
    loss: Loss,
    cost: Callable[[State, Loss], float] | None = None,
) -> State:
    """Levenberg-Marquardt on the robust cost, from a state that is already close.

    Args:
        state: where to begin.
        linearize: gives the least-squares problem of a state.
        loss: what errors cost.
        cost: gives the cost of a state, if that is much easier than to linearise it.
    """
    current = linearize(state, loss)
    damping, noise2 = 0.0, (loss.cutoff_px / 5.0) ** 2
    if not current.information.diagonal().max() > 0.0:
        return state  # every match is rejected
    for _ in range(_MAX_STEPS):
        step = damped_step(current, damping) * (_STRETCH if damping == 0.0 else 1.0)
        candidate: State = state.moved(step)  # type: ignore[assignment]
        if damping == 0.0 and -float(current.gradient @ step) < _UNCHECKED_GAIN * noise2:
            return candidate
        if damping == 0.0 and cost is not None and _is_last(step, current, cost(candidate, loss), noise2):
            return candidate
        following = linearize(candidate, loss)
        if following.cost <= current.cost:
            gain = current.cost - following.cost
            state, current, damping = candidate, following, damping / 10.0
            if gain < _SMALL_GAIN * noise2:
                break
        elif damping > _MAX_DAMPING:
            break
        else:
            damping = max(10.0 * damping, 1e-2)
    return state


def _is_last(step: Float, problem: Normals, cost: float, noise2: float) -> bool:
    """Whether next to nothing is left to do after a stretched step, by its cost, which tells the curvature along it."""
    promise = -float(problem.gradient @ step) / _STRETCH
    if not promise > 0.0:
        return False
    curvature = 2.0 * (_STRETCH - 0.5 * (problem.cost - cost) / promise) / _STRETCH**2
    left = promise * (1.0 - _STRETCH * curvature) ** 2
    return left < min(_MAX_LEFT * noise2, _MAX_LEFT_SHARE * promise)


def damped_step(problem: Normals, damping: float) -> Float:
    """Solve the normal equations, their diagonal enlarged by the share ``damping``."""
    diagonal = problem.information.diagonal()
    lifted = problem.information.copy()
    lifted.flat[:: len(lifted) + 1] += damping * diagonal + 1e-12 * (float(diagonal.max()) + 1e-300)
    _, step = cv2.solve(lifted, -problem.gradient[:, None], flags=cv2.DECOMP_CHOLESKY)  # sooner than NumPy's
    return np.asarray(step[:, 0], dtype=np.float64)
