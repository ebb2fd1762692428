"""Which work of a GPU is captured as a CUDA graph, and which of these graphs are kept.

A captured graph repeats all kernels of a stage with one launch, for inputs of exactly the kind that it was captured
with. Capturing takes as long as many ordinary runs: sizes that occur once, as the numbers of points after pruning do,
are not worth it, while full sets of keypoints and images of one camera return again and again.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from feature_matcher_ros.errors import MatcherError

_LOG = logging.getLogger(__name__)
_SIGHTINGS = 3  # of a kind of inputs, after which it is expected to return
_CANDIDATES = 4  # kinds of inputs whose sightings are counted; one that is not among the last ones is new again
_GRAPHS = 8  # that are kept; the least recently used one makes room

Graph = TypeVar("Graph")


class CudaGraphs(Generic[Graph]):
    """The graphs of one stage, by what they hold for. A graph gives back what it holds when it is dropped."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._graphs: OrderedDict[Hashable, Graph] = OrderedDict()
        self._sightings: OrderedDict[Hashable, int] = OrderedDict()
        self.num_captured = 0  # up to now
        self._is_refused = False

    def find(self, key: Hashable, capture: Callable[[], Graph]) -> Graph | None:
        """The graph to launch for inputs of a kind, captured now if they are due; None: run without one.

        Where ``capture`` raises a MatcherError, as it may, this stage runs without graphs from then on.
        """
        if key in self._graphs:
            self._graphs.move_to_end(key)
            return self._graphs[key]
        if self._is_refused or not self._is_due(key):
            return None
        try:
            self._graphs[key] = capture()
        except MatcherError as error:
            self._is_refused = True
            self._graphs.clear()  # the reason may be a want of memory
            _LOG.debug("the stage '%s' runs without CUDA graphs from now on: %s", self._stage, str(error))
            return None
        self.num_captured += 1
        if len(self._graphs) > _GRAPHS:
            self._graphs.popitem(last=False)
        return self._graphs[key]

    def _is_due(self, key: Hashable) -> bool:
        """Count a sighting. The more graphs were dropped, the more of them it takes: capturing must remain rare."""
        count = self._sightings.pop(key, 0) + 1
        if count >= _SIGHTINGS << self.num_captured // _GRAPHS:
            return True
        self._sightings[key] = count
        if len(self._sightings) > _CANDIDATES:
            self._sightings.popitem(last=False)
        return False
