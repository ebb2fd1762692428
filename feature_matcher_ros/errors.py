"""Every error this package raises on purpose.

    FeatureMatcherError
    ├── ConfigError        a configuration file or value is wrong
    ├── CalibrationError   a camera, its intrinsics or its distortion cannot be used
    ├── ImageError         an image or depth map cannot be decoded or has an impossible shape
    ├── SourceError        a bag, dataset folder or video cannot be read
    ├── OutputError        a result cannot be written
    ├── MatcherError       a matcher or extractor was given what it cannot process
    ├── FrameError         a single frame cannot be processed, those that follow still can
    ├── WeightsError       the weights of a network are missing, damaged or those of another one
    ├── RuntimeLoadError   a graph cannot be opened by the runtime that was asked for
    └── TrainingError      training cannot begin or go on

Each message is one sentence that holds the offending value, the cause and the remedy, so that the
command line can print it as it is.
"""


class FeatureMatcherError(Exception):
    """Base of all errors of this package; ``str(error)`` is fit to be shown to the user."""


class ConfigError(FeatureMatcherError):
    """A configuration file or value is wrong."""


class CalibrationError(FeatureMatcherError):
    """A camera, its intrinsics or its distortion cannot be used."""


class ImageError(FeatureMatcherError):
    """An image or depth map cannot be decoded or has an impossible shape."""


class SourceError(FeatureMatcherError):
    """A bag, dataset folder or video cannot be read."""


class OutputError(FeatureMatcherError):
    """A result cannot be written."""


class MatcherError(FeatureMatcherError):
    """A matcher or extractor was given what it cannot process."""


class FrameError(FeatureMatcherError):
    """A single frame cannot be processed: skip it, those that follow still can."""

    def __init__(self, stamp_ns: int, frame_id: str, reason: str) -> None:
        super().__init__(f"the frame of '{frame_id}' with the stamp {stamp_ns} ns cannot be processed: {reason}")
        self.stamp_ns = stamp_ns
        self.frame_id = frame_id
        self.reason = reason  # without the frame, to count equal ones by


class WeightsError(FeatureMatcherError):
    """The weights of a network are missing, damaged or those of another one."""


class RuntimeLoadError(FeatureMatcherError):
    """A graph cannot be opened by the runtime that was asked for."""


class TrainingError(FeatureMatcherError):
    """Training cannot begin or go on."""
