"""The live node where ROS 2 is: a lifecycle node with parameters and services around the ``Server``.

``configure`` loads the networks, ``activate`` listens, ``deactivate`` stops, ``cleanup`` frees. With ``autostart``
the node takes the first two steps by itself, so that ``ros2 run`` is enough; else something else leads it.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import rclpy
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.executors import MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from feature_matcher_ros.errors import ConfigError, FeatureMatcherError
from feature_matcher_ros.node_config import LiveConfig
from feature_matcher_ros.parameter_file import NODE_NAME
from feature_matcher_ros.ros.node_report import save_report
from feature_matcher_ros.ros.rclpy_graph import RclpyGraph
from feature_matcher_ros.ros.rclpy_logging import log_to
from feature_matcher_ros.ros.rclpy_parameters import concerns_us, config_of, declare_parameters
from feature_matcher_ros.ros.server import Server
from feature_matcher_ros.ros.stop_signals import LAST_FRAME_S, StopRequest, ignore_signals

_NUM_THREADS = 4  # so that tf, parameters and a report are served while a transition takes its time
_DEACTIVATION_S = 10.0  # that a frame is given to come to its end when the node is deactivated and lives on
_SPIN_S = 0.5
_LOG = logging.getLogger(__name__)

_SUCCESS, _FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class FrontEndNode(LifecycleNode):
    """The front-end as a node; transitions, parameters and services may be called from any thread of an executor.

    Raises:
        ConfigError: a parameter is unknown, or its value is wrong.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(NODE_NAME, automatically_declare_parameters_from_overrides=True, **arguments)
        log_to(self.get_logger())
        self.is_autostarted = self._declare_autostart()
        declare_parameters(self)
        config_of(self)  # what is wrong is said now, not when the node is configured
        self._graph = RclpyGraph(self)
        self._server: Server | None = None
        self.add_on_set_parameters_callback(self._on_parameters)
        group = MutuallyExclusiveCallbackGroup()
        self.create_service(Trigger, "~/reset", self._on_reset, callback_group=group)
        self.create_service(Trigger, "~/save_report", self._on_save_report, callback_group=group)
        self._answer_impossible_transitions()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the networks, with the parameters as they are now."""

        def configure() -> None:
            server = Server(self._graph, config_of(self))
            self._server = server
            server.configure()

        if self._is_done(configure):
            return _SUCCESS
        self._clean_up()
        return _FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Listen, and process what comes."""
        server = self._configured()
        if not self._is_done(server.activate):
            return _FAILURE
        _LOG.info("listens to %s", ", ".join(server.input_topics))
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening, and let the last frame come to its end."""
        if not self._configured().deactivate(_DEACTIVATION_S):
            _LOG.warning("a frame is still being processed after %.0f s", _DEACTIVATION_S)
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of networks and publishers."""
        self._clean_up()
        return _SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End, whatever the node was doing."""
        self.stop()
        return _SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin again, unconfigured."""
        self.stop()
        return _SUCCESS

    def stop(self, timeout_s: float = _DEACTIVATION_S) -> bool:
        """Deactivate and clean up; False if a frame was still being processed after ``timeout_s``."""
        is_idle = self._server is None or self._server.deactivate(timeout_s)
        if is_idle:
            self._clean_up()
        return is_idle

    def start(self) -> bool:
        """Configure and activate."""
        return self.trigger_configure() == _SUCCESS and self.trigger_activate() == _SUCCESS

    def _declare_autostart(self) -> bool:
        given = self.get_parameter_or("autostart").value
        if given is not None:
            if not isinstance(given, bool):
                raise ConfigError(f"autostart = {given!r} is not of type bool: give true or false.")
            self.undeclare_parameter("autostart")
        text = "configure and activate at once; false leaves that to a lifecycle manager"
        value = self.declare_parameter("autostart", True, ParameterDescriptor(description=text, read_only=True)).value
        return bool(value)

    def _answer_impossible_transitions(self) -> None:
        """Refuse what the state does not allow; rclpy of 2024 and before lets whoever asks for that wait for ever."""
        service = next(found for found in self.services if found.srv_name.endswith("/change_state"))
        change_state = service.callback

        def answer(request: Any, response: Any) -> Any:
            try:
                return change_state(request, response)
            except RuntimeError as error:  # of which rclpy's own errors are kinds
                _LOG.error("the state cannot be changed: %s", error)
                response.success = False
                return response

        service.callback = answer

    def _configured(self) -> Server:
        assert self._server is not None  # which the states of the lifecycle guarantee
        return self._server

    def _clean_up(self) -> None:
        if self._server is not None:
            self._server.cleanup()
        self._server = None
        gc.collect()  # sessions and engines in cycles would keep their memory, the GPU's too

    def _is_done(self, step: Callable[[], None]) -> bool:
        """Tell whether a step succeeded; what went wrong is logged, for rclpy would pass over it in silence."""
        try:
            step()
        except FeatureMatcherError as error:
            _LOG.error("%s", error)
            return False
        except Exception as error:
            _LOG.exception("the node cannot start: %r", error)
            return False
        return True

    def _on_parameters(self, changes: Iterable[Parameter]) -> SetParametersResult:
        """Check a change, and follow it if the node is configured."""
        changes = list(changes)
        try:
            if concerns_us(changes):
                self._follow(changes)
        except FeatureMatcherError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _follow(self, changes: list[Parameter]) -> None:
        removed = [change.name for change in changes if change.type_ == Parameter.Type.NOT_SET]
        if removed:
            raise ConfigError(f"the parameter {removed[0]} cannot be removed: give it a value.")
        config: LiveConfig = config_of(self, changes)
        if self._server is not None:
            self._server.follow(config)

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        server = self._server
        if server is None:
            response.success, response.message = False, "the node is not configured."
            return response
        server.reset()
        response.success, response.message = True, "the next frame begins a new segment."
        return response

    def _on_save_report(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        server = self._server
        if server is None:
            response.success, response.message = False, "the node is not configured."
            return response
        try:
            path = save_report(Path(config_of(self).node.report_folder), server.report())
        except FeatureMatcherError as error:
            response.success, response.message = False, str(error)
            return response
        response.success, response.message = True, str(path.resolve())
        return response


def main(stop: StopRequest) -> None:
    """Run the node until it is to stop; exits with 1 and one sentence if it cannot start."""
    try:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        node = FrontEndNode()
    except FeatureMatcherError as error:
        _exit_with(str(error))
    except RuntimeError as error:  # of which rclpy's own errors are kinds: ROS arguments that it cannot read
        _exit_with(" ".join(str(error).split()))
    sys.exit(_run(node, stop))


def _run(node: FrontEndNode, stop: StopRequest) -> int:
    """Start the node and serve its callbacks until it is to stop; returns the exit code."""
    executor = MultiThreadedExecutor(_NUM_THREADS)
    executor.add_node(node)
    spinning = threading.Thread(target=_spin, args=(executor, stop), name="spin", daemon=True)
    starting = _Start(node, stop)
    spinning.start()
    starting.start()
    stop.wait()
    # An extension module that is still computing would crash while Python is torn down around it.
    starting.join(LAST_FRAME_S)
    if starting.is_alive() or not node.stop(LAST_FRAME_S):
        sys.stdout.flush()
        os._exit(0)
    spinning.join()
    executor.shutdown(LAST_FRAME_S)
    node.destroy_node()
    rclpy.shutdown()
    ignore_signals()
    return 1 if starting.is_failed else 0


class _Start(threading.Thread):
    """Configures and activates the node, in a thread because engines may take minutes that nobody wants to wait."""

    def __init__(self, node: FrontEndNode, stop: StopRequest) -> None:
        super().__init__(name="start", daemon=True)
        self._node, self._stop_process = node, stop
        self.is_failed = False

    def run(self) -> None:
        if self._node.is_autostarted and not self._node.start():
            self.is_failed = True
            self._stop_process.set()


def _spin(executor: MultiThreadedExecutor, stop: StopRequest) -> None:
    """Serve callbacks; an error that one of them lets through is logged, and the others are served."""
    while not stop.is_set:
        with _logging_errors():
            executor.spin_once(_SPIN_S)


@contextmanager
def _logging_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # an endpoint was closed while it was waited for, say
        _LOG.error("a callback failed: %r", error)
        time.sleep(0.01)


def _exit_with(sentence: str) -> NoReturn:
    sys.stderr.write(f"front_end_node: {sentence}\n")
    sys.exit(1)
