"""What the node says on ``/diagnostics`` while it is being configured, and which networks it then has."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from feature_matcher_ros.ros.graph import Graph, Publisher
from feature_matcher_ros.ros.messages import make_header
from feature_matcher_ros.runtimes.graph_news import GraphNews, hearing_of_graphs
from feature_matcher_ros.runtimes.runtime import Runtime

_PERIOD_S = 1.0
_OK, _ERROR = 0, 2  # DiagnosticStatus.level


class StartProgress:
    """A context in which the networks are opened: engines may take minutes, in which nobody should have to guess.

    A thread of its own publishes what is being done, once a second and whenever that changes.
    """

    def __init__(self, graph: Graph, diagnostics: Publisher) -> None:
        self._graph, self._diagnostics = graph, diagnostics
        self._opened: list[tuple[str, Runtime]] = []
        self._level, self._state, self._step = _OK, "CONFIGURING", "begins"
        self._begun_s = time.monotonic()
        self._changed = threading.Condition()
        self._is_done = False
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._listening = ExitStack()

    @property
    def networks(self) -> dict[str, str]:
        """By which runtime and in which precision the networks are executed, for diagnostics."""
        if not self._opened:
            return {"networks": "none"}
        of_all = {
            "networks": [network for network, _ in self._opened],
            "runtime": [runtime.name for _, runtime in self._opened],
            "precision": [runtime.precision for _, runtime in self._opened],
        }
        return {key: ", ".join(dict.fromkeys(values)) for key, values in of_all.items()}

    def begin(self, step: str) -> None:
        """Say what is done next."""
        with self._changed:
            if step != self._step:
                self._step = step
                self._changed.notify()

    def on_engine(self, graph: str, share: float) -> None:
        """Say which engine is being built, and which share of all is done."""
        self.begin(f"builds the engine of {graph}, {100.0 * share:.0f} % of all are built")

    def __enter__(self) -> StartProgress:
        self._listening.enter_context(hearing_of_graphs(self._on_graph))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.close()
        with self._changed:
            self._is_done = True
            self._changed.notify()
        self._thread.join()
        self._level, self._state = (_OK, "CONFIGURED") if error is None else (_ERROR, "FAILED")
        self._step = f"after {self._seconds:.1f} s" if error is None else str(error)
        self._publish()

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._begun_s

    def _on_graph(self, news: GraphNews) -> None:
        if news.opened is None:
            self.begin(f"opens {news.graph} of {news.network}")
        else:
            self._opened.append((news.network, news.opened))

    def _run(self) -> None:
        with self._changed:
            while not self._is_done:
                self._publish()
                self._changed.wait(_PERIOD_S)

    def _publish(self) -> None:
        if self._diagnostics.has_subscribers():
            self._diagnostics.publish(self._message())

    def _message(self) -> Any:
        make = self._graph.make
        values = {
            "state": self._state,
            "step": self._step,
            "graphs_opened": str(len(self._opened)),
            "seconds": f"{self._seconds:.1f}",
            **self.networks,
        }
        status = make(
            "diagnostic_msgs/msg/DiagnosticStatus",
            level=self._level,
            name=f"{self._graph.node_name.lstrip('/')}: start",
            message=f"{self._state}: {self._step}",
            hardware_id="",
            values=[make("diagnostic_msgs/msg/KeyValue", key=key, value=value) for key, value in values.items()],
        )
        header = make_header(make, self._graph.now_ns(), "")
        return make("diagnostic_msgs/msg/DiagnosticArray", header=header, status=[status])
