"""Every model that the package returns is a Keras model like others: its layers tell their outputs, it is
cloned, summed up, drawn, saved and nested."""

import io
import itertools

import keras
import numpy as np
import pytest

import keras_dnn_extras as kdx

L = keras.layers
X = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")


def layers():
    return [
        L.Dense(5, activation="elu", name="first"),
        L.Dense(4, use_bias=False, name="second"),
        L.BatchNormalization(name="norm"),
        L.Dropout(0.5, name="drop"),
    ]


def sequential():
    return keras.Sequential([keras.Input((6,)), *layers(), L.Dense(3, name="head")])


def functional():
    inputs = outputs = keras.Input((6,), name="of_functional")
    for layer in [*layers(), L.Dense(3, name="head")]:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def nested():
    body = keras.Sequential([keras.Input((6,)), *layers()], name="body")
    inputs = keras.Input((6,))
    return keras.Model(inputs, L.Dense(3, name="head")(body(inputs)))


def built_by_a_call():
    model = keras.Sequential([*layers(), L.Dense(3, name="head")])
    model(X)
    return model


def cut(model):
    after = "norm" if "body" not in [layer.name for layer in model.layers] else "body/norm"
    return kdx.replace_head(model, [L.Dense(4, name="new_1"), L.Dense(2, name="new_2")], after=after)


COPIES = {
    "replace_head": lambda model: kdx.replace_head(model, L.Dense(2, name="new")),
    "replace_head after": cut,
    "replace_head twice": lambda model: cut(kdx.replace_head(model, L.Dense(2, name="new"))),
    "fuse_batch_norm": lambda model: kdx.fuse_batch_norm(model).model,
    "to_mc_dropout": kdx.to_mc_dropout,
    "to_deterministic": lambda model: kdx.to_deterministic(kdx.to_mc_dropout(model)),
}
MODELS = [sequential, functional, nested, built_by_a_call]


def autoencoder(**settings):
    inputs = [keras.Input((6,)), L.Normalization(mean=0.5, variance=2.0)]
    encoder = keras.Sequential([*inputs, L.Dense(4, name="code")], name="encoder")
    return kdx.build_autoencoder(encoder, **settings)


def of(model):
    """Return the model within that has the first layer."""
    inner = [layer for layer in model.layers if layer.name == "body"]
    return inner[0] if inner else model


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def assert_serves(model, name):
    """`name` is the layer that takes the inputs of its model."""
    layer = model.get_layer(name)
    features = keras.Model(model.inputs, [layer.output, *model.outputs])  # as for Grad-CAM
    kernel, bias = (array(weight) for weight in layer.weights)
    expected = array(layer.activation(keras.ops.convert_to_tensor(X @ kernel + bias)))
    np.testing.assert_allclose(array(features([X])[0]), expected, atol=1e-5)


@pytest.mark.parametrize(("kind", "make"), list(itertools.product(COPIES, MODELS)))
def test_layers_of_a_copy_tell_their_outputs_also_after_saving_and_cloning(kind, make, tmp_path):
    copy = COPIES[kind](make())
    assert_serves(of(copy), "first")
    copy.save(tmp_path / "model.keras")
    assert_serves(of(keras.models.load_model(tmp_path / "model.keras")), "first")
    clone = keras.models.clone_model(copy)
    assert_serves(of(clone), "first")
    assert clone.output_shape == copy.output_shape


@pytest.mark.parametrize(("kind", "make"), list(zip(COPIES, itertools.cycle(MODELS), strict=False)))
def test_a_copy_is_summed_up_and_nested(kind, make):
    copy = COPIES[kind](make())
    text = io.StringIO()
    copy.summary(print_fn=lambda line: text.write(line), expand_nested=True)
    for layer in copy._flatten_layers(include_self=False):
        if layer.weights:
            assert layer.name in text.getvalue()
    inputs = keras.Input((6,))
    outer = keras.Model(inputs, L.Dense(1)(copy(inputs)))
    assert array(outer(X)).shape == (4, 1)
    assert_serves(of(copy), "first")


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_drawn(kind):
    pytest.importorskip("pydot")
    for make in MODELS:
        copy = COPIES[kind](make())
        drawn = keras.utils.model_to_dot(copy, expand_nested=True).to_string()
        assert all(layer.name in drawn for layer in copy.layers)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: kdx.dnn(6, [5, 4, 3], 2, recipe="self_normalizing"), "hidden_1"),
        (lambda: autoencoder(), "code_transposed"),
        (lambda: autoencoder(noise=0.1), "code_transposed"),
    ],
)
def test_models_that_are_made_tell_the_outputs_of_their_layers(make, name, tmp_path):
    model = make()
    model.save(tmp_path / "model.keras")
    for each in (model, keras.models.clone_model(model), keras.models.load_model(tmp_path / "model.keras")):
        features = keras.Model(each.inputs, [each.get_layer(name).output, *each.outputs])
        outputs = [array(tensor) for tensor in features([X])]
        np.testing.assert_allclose(outputs[-1], array(each(X)), atol=1e-6)
        assert outputs[0].shape == (4, each.get_layer(name).output.shape[-1])


def test_an_encoder_tells_the_outputs_of_its_layers_after_pretraining():
    encoder = keras.Sequential([keras.Input((6,)), *layers()])
    kdx.build_autoencoder(encoder, tied=True)
    kdx.pretrain_autoencoder(encoder, X, epochs=1, verbose=0)
    assert_serves(encoder, "first")
