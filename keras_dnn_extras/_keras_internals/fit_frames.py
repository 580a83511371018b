"""Who calls: the loop that runs a step, and the list of callbacks that is called."""

import sys
from types import FrameType

import keras

_ANNOUNCING = keras.callbacks.CallbackList.on_train_batch_begin.__code__


def callbacks_of_fit(callback: keras.callbacks.Callback) -> list[keras.callbacks.Callback]:
    """Return the list of the callbacks that `fit` is calling, `callback` among them.

    Keras tells a callback its model and the number of epochs, but not which others there are. The
    `CallbackList` stands a frame or two above; where a loop of the user's own calls the callback,
    there is none.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, keras.callbacks.CallbackList) and callback in owner.callbacks:
            return owner.callbacks
        frame = frame.f_back
    return []


def loop_of_step() -> FrameType | None:
    """Return the frame that runs the step: of `fit`, or of a loop of the user's own by `train_on_batch`."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and _is_train_on_batch_of_keras(frame):
        frame = frame.f_back
    return frame


def _is_train_on_batch_of_keras(frame: FrameType) -> bool:
    is_of_model = isinstance(frame.f_locals.get("self"), keras.Model)
    return is_of_model and frame.f_code.co_name == keras.Model.train_on_batch.__name__


def loop_of_fit() -> FrameType | None:
    """Return the frame that is calling the callbacks of a batch, which will call the step as well.

    An exception, in another callback say, may keep it from doing so. The announced step is the one that
    this very frame calls, and no later one. None where a loop of the user's own calls the callback.
    """
    frame: FrameType | None = sys._getframe(2)
    by_keras = False
    while frame is not None and frame.f_code.co_name == _ANNOUNCING.co_name:
        by_keras |= frame.f_code is _ANNOUNCING
        frame = frame.f_back
    return frame if by_keras else None


def refuse_in_fit(model: keras.Model) -> None:
    """Raise a RuntimeError if a callback calls this while `fit` trains `model`."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        of_fit = isinstance(owner, keras.callbacks.CallbackList) and owner._model is model
        if of_fit and frame.f_code.co_name != "on_train_end":
            raise RuntimeError(
                "What is trained cannot be changed by a callback while `fit` runs. Pass the callback "
                f"`GradualUnfreezing` to `fit`, or call `fit` again. Received: model={model}"
            )
        frame = frame.f_back
