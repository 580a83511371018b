"""Count the folders that a call enters, and its steps from one folder into another.

    KERAS_BACKEND=torch python benchmarks/call_trace.py           # or tensorflow, or jax
    KERAS_BACKEND=torch python benchmarks/call_trace.py --calls   # prints each call too
    python benchmarks/call_trace.py --modules                     # counts modules in place of folders

A step leads from one folder into another one: a function of the one calls one of the other, through Keras
too. Each pair of folders counts once as a step, each pair of functions once as a call, however often they
run. This is what a reader has to walk through, not what it costs.
"""

import argparse
import pathlib
import sys
import threading

import keras
import numpy as np

import keras_dnn_extras as kdx

PACKAGE = pathlib.Path(kdx.__file__).parent


class Trace:
    """The calls between rooms of the package: its folders, or its modules."""

    def __init__(self, by_module):
        self._by_module = by_module
        self._rooms = {}  # by code object
        self._stack = []
        self.calls = {}  # by caller and callee, the rooms of both

    def _room(self, code):
        if code not in self._rooms:
            path = pathlib.Path(code.co_filename)
            inside = path.is_relative_to(PACKAGE)
            parts = path.relative_to(PACKAGE).with_suffix("").parts if inside else None
            self._rooms[code] = parts and (".".join(parts) if self._by_module else parts[0])
        return self._rooms[code]

    def __call__(self, frame, event, _):
        if event == "call":
            room = self._room(frame.f_code)
            caller = next((place for place in reversed(self._stack) if place), ("user", "user"))
            if room and room != caller[0]:
                self.calls[caller[1], f"{room}: {frame.f_code.co_qualname}"] = caller[0], room
            self._stack.append((room, f"{room}: {frame.f_code.co_qualname}") if room else None)
        elif event == "return" and self._stack:
            self._stack.pop()

    def of(self, function):
        """Return what calls what from room to room while `function` runs, and the two rooms."""
        self.calls, self._stack = {}, []
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            function()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
        return self.calls


def network():
    layers = keras.layers
    hidden = [
        layers.Dense(8, use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Dropout(0.5),
    ]
    model = keras.Sequential([keras.Input((5,)), *hidden, layers.Dense(2)])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    return model


def calls():
    """Return eight calls that users make, by name."""
    x, y = np.ones((32, 5), "float32"), np.ones((32, 2), "float32")

    def fit(callback):
        network().fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[callback])

    def encoder():
        layers = [keras.layers.Dense(4, "elu"), keras.layers.Dense(3, "elu")]
        return keras.Sequential([keras.Input((5,)), *layers])

    return {
        "fit with OneCycleScheduler": lambda: fit(kdx.OneCycleScheduler(0.1)),
        "fit with GradientNormMonitor": lambda: fit(kdx.GradientNormMonitor()),
        "find_learning_rate": lambda: kdx.find_learning_rate(
            network(), x, y, steps=10, batch_size=8, verbose=0
        ),
        "fine_tune": lambda: kdx.fine_tune(network(), x, y, epochs=2, batch_size=8, verbose=0),
        "pretrain_autoencoder": lambda: kdx.pretrain_autoencoder(encoder(), x, epochs=1, verbose=0),
        "mc_predict": lambda: kdx.mc_predict(network(), x, samples=4),
        "fuse_batch_norm": lambda: kdx.fuse_batch_norm(network()),
        "compile_for_inference": lambda: kdx.compile_for_inference(network(), engine="numpy"),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--modules", action="store_true")
    parser.add_argument("--calls", action="store_true")
    options = parser.parse_args()
    rooms = "modules" if options.modules else "folders"
    print(f"{'':30} {rooms:>8} {'steps':>6} {'calls':>6}")
    for name, call in calls().items():
        between = Trace(options.modules).of(call)
        entered, steps = {room for _, room in between.values()}, set(between.values())
        print(f"{name:30} {len(entered):8} {len(steps):6} {len(between):6}")
        for caller, callee in between if options.calls else ():
            print(f"    {caller} -> {callee}")


if __name__ == "__main__":
    main()
