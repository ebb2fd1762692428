"""Robust least squares over all matches: the last step of every estimate, and the source of its covariance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

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
    information: Float  # (k, k), sum of w JᵀJ
    gradient: Float  # (k,), sum of w Jᵀr


@dataclass(frozen=True, slots=True)
class Loss:
    """Tukey's biweight on the length of a residual: gross errors have no say at all."""

    cutoff_px: float

    def weights(self, length2: Float) -> Float:
        """Weights (M,) in [0, 1] of squared lengths (M,)."""
        return np.maximum(1.0 - length2 / self.cutoff_px**2, 0.0) ** 2

    def cost(self, length2: Float) -> float:
        """Sum over all matches, in px²; half of it is that of least squares near zero."""
        inside = np.maximum(1.0 - length2 / self.cutoff_px**2, 0.0)
        return float(np.sum(1.0 - inside**3)) * self.cutoff_px**2 / 3.0


def squared_length(residuals: Float) -> Float:
    """(M,) of residuals (1 or 2, M)."""
    return np.einsum("km,km->m", residuals, residuals)


def robust_sigma(residuals: Float, gate_px: float, floor_px: float) -> float:
    """Standard deviation of one component, from the median length of the residuals within the gate."""
    length2 = squared_length(residuals)
    inside = length2[length2 < gate_px**2]
    if len(inside) == 0:
        return gate_px
    middle = len(inside) // 2
    median = float(np.partition(inside, middle)[middle])  # several times faster than np.median
    return max(median**0.5 / _MEDIAN_LENGTH[len(residuals)], floor_px)


def make_loss(sigma_px: float, num_components: int) -> Loss:
    """The loss for noise of ``sigma_px`` in each of 1 or 2 components."""
    return Loss(_TUKEY_CUTOFF[num_components] * sigma_px)


def normals(motion: Motion, matches: Correspondences, loss: Loss | None) -> Normals:
    """Linearise a motion; without a loss all matches have weight 1."""
    residuals, by_matrix = motion.linearize(matches)
    weights = np.ones(len(matches)) if loss is None else loss.weights(squared_length(residuals))
    tangent = motion.tangent()
    information, gradient = np.zeros((9, 9)), np.zeros(9)
    for derivative, residual in zip(by_matrix, residuals, strict=True):
        weighted = derivative * weights
        information += weighted @ derivative.T
        gradient += weighted @ residual
    return Normals(residuals, tangent.T @ information @ tangent, tangent.T @ gradient)


def refine_motion(motion: MotionState, matches: Correspondences, gate_px: float, floor_px: float) -> MotionState:
    """Move a motion to the robust optimum nearby; the scale of the noise is taken where it starts."""
    residuals = motion.residuals(matches)
    loss = make_loss(robust_sigma(residuals, gate_px, floor_px), len(residuals))
    return refine(motion, lambda state, loss: normals(state, matches, loss), loss)


def refine(state: State, linearize: Callable[[State, Loss], Normals], loss: Loss) -> State:
    """Levenberg-Marquardt on the robust cost, from a state that is already close."""
    current = linearize(state, loss)
    cost, damping = loss.cost(squared_length(current.residuals)), 0.0
    if not np.max(np.diag(current.information)) > 0.0:
        return state  # every match is rejected
    for _ in range(_MAX_STEPS):
        step = damped_step(current, damping)
        candidate: State = state.moved(step)  # type: ignore[assignment]
        following = linearize(candidate, loss)
        following_cost = loss.cost(squared_length(following.residuals))
        if following_cost <= cost:
            gain = cost - following_cost
            state, current, cost, damping = candidate, following, following_cost, damping / 10.0
            if gain < _SMALL_GAIN * (loss.cutoff_px / 5.0) ** 2:
                break
        elif damping > _MAX_DAMPING:
            break
        else:
            damping = max(10.0 * damping, 1e-2)
    return state


def damped_step(problem: Normals, damping: float) -> Float:
    """Solve the normal equations, their diagonal enlarged by the share ``damping``."""
    diagonal = np.diag(problem.information)
    lift = damping * diagonal + 1e-12 * (float(np.max(diagonal)) + 1e-300)
    return np.asarray(-np.linalg.solve(problem.information + np.diag(lift), problem.gradient), dtype=np.float64)
