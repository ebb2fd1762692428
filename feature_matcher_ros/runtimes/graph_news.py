"""News of the graphs that are being opened, for engines may take a while and somebody may want to know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from feature_matcher_ros.runtimes.runtime import Runtime


@dataclass(frozen=True, slots=True)
class GraphNews:
    """One graph of a network is about to be opened, or is open."""

    network: str  # the matcher or extractor that it belongs to
    graph: str
    opened: Runtime | None = None


_LISTENER: ContextVar[Callable[[GraphNews], None] | None] = ContextVar("listener", default=None)


@contextmanager
def hearing_of_graphs(listener: Callable[[GraphNews], None]) -> Iterator[None]:
    """Call ``listener`` of every graph that this thread opens in the meantime."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def tell_of_graph(news: GraphNews) -> None:
    """Tell whoever listens."""
    listener = _LISTENER.get()
    if listener is not None:
        listener(news)
