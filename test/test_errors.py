"""The tree of errors: drawn as it is, and complete."""

import inspect
import re

from feature_matcher_ros import errors

CLASSES = {name: cls for name, cls in vars(errors).items() if inspect.isclass(cls)}


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    assert errors.__doc__ is not None
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__)
    assert drawn == [name for name in CLASSES if name != "FeatureMatcherError"]


def test_one_base_catches_every_error_and_nothing_else_does() -> None:
    for name, cls in CLASSES.items():
        if name != "FeatureMatcherError":
            assert cls.__bases__ == (errors.FeatureMatcherError,)
    assert errors.FeatureMatcherError.__bases__ == (Exception,)


def test_the_text_of_an_error_is_its_sentence() -> None:
    for name, cls in CLASSES.items():
        if name != "FrameError":
            assert str(cls("K = 0: calibrate the camera.")) == "K = 0: calibrate the camera."
    error = errors.FrameError(5, "left", "it is dark: wait for the day.")
    assert str(error) == "the frame of 'left' with the stamp 5 ns cannot be processed: it is dark: wait for the day."
    assert (error.stamp_ns, error.frame_id, error.reason) == (5, "left", "it is dark: wait for the day.")
