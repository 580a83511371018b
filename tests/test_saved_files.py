"""Files that version 0.1.0 wrote on JAX with Keras 3.15.1, when it was one flat folder, load."""

import json
import pathlib
import zipfile

import keras
import numpy as np
import pytest

import keras_dnn_extras as kdx

SAVED = pathlib.Path(__file__).parent / "saved"
FILES = sorted(path.stem for path in SAVED.glob("*.keras"))
SCHEDULES = ["OneCycle", "PowerDecay", "Warmup"]
CALLBACKS = ["ExponentialLR", "GradientNormMonitor", "OneCycleScheduler", "PiecewiseConstantLR", "PowerLR"]
with np.load(SAVED / "expected.npz") as arrays:
    EXPECTED = dict(arrays)

pytestmark = pytest.mark.skipif(
    keras.version() < "3.15", reason="Keras promises to read files of older versions, not of later ones"
)


def loaded(name):
    return keras.saving.load_model(SAVED / f"{name}.keras")


@pytest.mark.parametrize("name", FILES)
def test_a_file_computes_what_it_did(name):
    """On five rounded operations at most, of which each errs by 2**-24 of terms of size 10 or less."""
    model = loaded(name)
    if name.startswith("MC") or name == "to_mc_dropout":
        model = kdx.to_deterministic(model)
    outputs = keras.ops.convert_to_numpy(model(EXPECTED[f"{name}.x"]))
    np.testing.assert_allclose(outputs, EXPECTED[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FILES)
def test_the_classes_in_a_file_are_those_of_the_package(name):
    """And keep the names that they are registered under, when they are saved again."""
    model = loaded(name)
    names = set()

    def look(config):
        if isinstance(config, dict):
            names.add(config.get("registered_name"))
            config = list(config.values())
        for part in config if isinstance(config, list) else []:
            look(part)

    with zipfile.ZipFile(SAVED / f"{name}.keras") as file:
        look(json.loads(file.read("config.json")))
    ours = {each for each in names if each and each.startswith("keras_dnn_extras>")}
    names.clear()
    look(keras.saving.serialize_keras_object(model))
    compiled = model.get_compile_config() if model.compiled else None
    look(compiled or {})
    assert {each for each in names if each and each.startswith("keras_dnn_extras>")} == ours
    layers = [layer for layer in model.layers if type(layer).__module__.startswith("keras_dnn_extras")]
    assert bool(ours) == bool(layers or name in SCHEDULES)


@pytest.mark.parametrize("name", [*SCHEDULES, *CALLBACKS])
def test_training_goes_on_from_the_rate_of_the_file(name):
    model = loaded(name)
    assert int(model.optimizer.iterations) == 6  # 3 epochs of 2 batches
    rate = keras.ops.convert_to_numpy(model.optimizer.learning_rate)
    np.testing.assert_allclose(rate, EXPECTED[f"{name}.rate"], rtol=1e-6)
    x = EXPECTED[f"{name}.x"]
    model.jit_compile = False  # as they were compiled on JAX: with `torch.compile` that is half a minute
    model.fit(x, np.zeros((len(x), 2)), batch_size=4, verbose=0)
    assert int(model.optimizer.iterations) == 8
