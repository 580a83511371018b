"""replace_head: the copy, where it can be cut, what it keeps, and what it refuses."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from transfer_models import assert_same, fit, flat, nested, path, subclassed, values

import keras_dnn_extras as kdx

L = keras.layers


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


def hidden(model, name, x):
    """Return what the layer `name` of a functional model computes."""
    return keras.Model(model.inputs, model.get_layer(name).output).predict(x, verbose=0)


@pytest.mark.parametrize(("make", "freeze_body"), [(flat, True), (nested, False)])
def test_training_the_new_model_leaves_the_old_one_bit_identical(make, freeze_body):
    model = make()
    model.compile("adam", "mse")
    fit(model)
    before, state = values(model.weights), values(model.optimizer.variables)
    new = kdx.replace_head(model, L.Dense(2, name="new"), freeze_body=freeze_body)
    new.compile(keras.optimizers.AdamW(0.1), "mse")
    body = values(new.weights)[:-2]
    assert_same(body, before[:-2])
    fit(new, epochs=2)
    assert_same(values(model.weights), before)
    assert_same(values(model.optimizer.variables), state)
    moved = [(a != b).any() for a, b in zip(values(new.weights)[:-2], body, strict=True)]
    assert any(moved) is not freeze_body
    fit(model)  # and the old one trains on
    assert_same(values(new.weights)[:-2], body) if freeze_body else None


@pytest.mark.parametrize("make", [flat, nested])
def test_the_body_computes_what_it_did_under_any_head(make):
    model = make()
    x = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    kernel = np.random.default_rng(1).normal(size=(5, 3)).astype("float32")
    head = [L.Dense(3, name="new", use_bias=False), L.Activation("tanh")]
    new = kdx.replace_head(model, head)
    head[0].set_weights([kernel])
    features = hidden(model, model.layers[-2].name, x)
    np.testing.assert_allclose(new.predict(x, verbose=0), np.tanh(features @ kernel), atol=1e-6)
    assert type(new) is (keras.Sequential if make is flat else type(new))


def test_the_head_may_be_a_model():
    head = keras.Sequential([L.Dense(4), L.Dropout(0.2), L.Dense(3)], name="top")
    new = kdx.replace_head(nested(), head)
    assert new.output_shape == (None, 3)
    assert new.layers[-1] is head
    assert len(new.trainable_variables) == 4


def test_cut_after_a_layer_by_its_name_or_path():
    model = keras.Sequential([keras.Input((6,)), *(L.Dense(n, name=f"d{n}") for n in (5, 4, 3))])
    assert [found.name for found in kdx.replace_head(model, L.Dense(2, name="new"), after="d5").layers] == [
        "d5",
        "new",
    ]
    x = np.ones((3, 6), "float32")
    outer = nested()
    new = kdx.replace_head(outer, L.Identity(), after="body/norm")
    body = outer.layers[1]
    expected = keras.Model(body.inputs, body.get_layer("norm").output).predict(x, verbose=0)
    np.testing.assert_array_equal(new.predict(x, verbose=0), expected)
    assert [found.name for found in new.layers[1].layers if found.weights] == ["first", "norm"]


def test_several_inputs_keep_their_names_and_structure():
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b", dtype="int32")
    joined = L.Concatenate()([L.Dense(4, name="of_a")(a), L.Flatten()(L.Embedding(5, 2, name="of_b")(b))])
    model = keras.Model({"a": a, "b": b}, L.Dense(1, name="head")(joined))
    new = kdx.replace_head(model, L.Dense(3, name="new"))
    x = {"a": np.ones((4, 3), "float32"), "b": np.ones((4, 2), "int32")}
    assert new.predict(x, verbose=0).shape == (4, 3)
    assert {name: tensor.dtype for name, tensor in new.input.items()} == {"a": "float32", "b": "int32"}
    new.compile("sgd", "mse")
    new.fit(x, np.ones((4, 3)), verbose=0)


def test_a_backbone_of_keras_applications_is_cut_within():
    backbone = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=7)
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, L.Dense(2)(backbone(inputs)))
    name = "expanded_conv_project_BN"  # early: the copy is of all of it, and few layers are compiled
    head = [L.GlobalAveragePooling2D(), L.Dense(3, activation="softmax")]
    new = kdx.replace_head(model, head, after=f"{backbone.name}/{name}")
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    features = hidden(backbone, name, x).mean(axis=(1, 2))
    kernel, bias = new.layers[-1].get_weights()
    logits = features @ kernel + bias
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(new.predict(x, verbose=0), expected, atol=1e-5)
    assert len(new.trainable_variables) == 2


def test_an_operation_of_the_name_of_a_layer_is_copied():
    # In a model like those of `keras.applications`: `Add` is the name of a layer, and of what `+` records.
    inputs = keras.Input((6,))
    hidden = L.Add()([L.Dense(6)(inputs), inputs])
    body = keras.Model(inputs, hidden * (hidden + 3.0), name="body")
    outer = keras.Model(inputs, L.Dense(2)(body(inputs)))
    x = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    new = kdx.replace_head(outer, L.Identity())
    np.testing.assert_array_equal(new.predict(x, verbose=0), body.predict(x, verbose=0))


def test_what_was_adapted_is_copied():
    x = np.random.default_rng(0).normal(3.0, 5.0, size=(9, 6)).astype("float32")
    adapted = L.Normalization(name="adapted")
    adapted.adapt(x)
    model = keras.Sequential([keras.Input((6,)), adapted, L.Dense(2)])
    new = kdx.replace_head(model, L.Identity())
    expected = (x - x.mean(axis=0)) / x.std(axis=0)
    np.testing.assert_allclose(new.predict(x, verbose=0), expected, atol=1e-5)


def keras_loads(layer, tmp_path):
    keras.Sequential([keras.Input((), dtype="string"), layer]).save(tmp_path / "model.keras")
    try:
        keras.saving.load_model(tmp_path / "model.keras")
    except ValueError:  # as with Keras 3.13
        return False
    return True


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="has no strings")
@pytest.mark.parametrize("mode", ["multi_hot", "tf_idf"])
def test_a_vocabulary_is_copied(mode, tmp_path):
    import tensorflow as tf

    words = L.TextVectorization(output_mode=mode)
    words.adapt(["a b", "b c c"])
    if mode == "tf_idf" and not keras_loads(words, tmp_path):
        pytest.skip("this version of Keras cannot load such a layer itself")
    model = keras.Sequential([keras.Input((), dtype="string"), words, L.Dense(2)])
    new = kdx.replace_head(model, L.Identity())
    x = tf.constant(["a c", "b d b"])
    np.testing.assert_array_equal(new(x), words(x))


def test_a_layer_that_only_writes_files_of_its_own_is_copied():
    class Noted(L.Layer):
        def call(self, x):
            return 2 * x

        def save_assets(self, folder):
            raise AssertionError("there is nothing that would read them")

    model = keras.Sequential([keras.Input((2,)), Noted(), L.Dense(1)])
    new = kdx.replace_head(model, L.Identity())
    assert new.predict(np.ones((1, 2)), verbose=0).tolist() == [[2.0, 2.0]]


def test_mixed_precision_is_kept():
    body = L.Dense(4, dtype="mixed_bfloat16", name="body")
    model = keras.Sequential([keras.Input((3,)), body, L.Dense(2, name="head")])
    new = kdx.replace_head(model, L.Dense(3, dtype="float32"))
    assert new.layers[0].compute_dtype == "bfloat16"
    assert new.predict(np.ones((2, 3)), verbose=0).dtype == "float32"


def test_the_policy_of_the_model_is_kept_which_tells_whether_to_scale_the_loss():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = nested()
    finally:
        keras.config.set_dtype_policy(before)
    new = kdx.replace_head(model, L.Dense(3, name="new"))
    new.compile("sgd", "mse")
    assert isinstance(new.optimizer, keras.optimizers.LossScaleOptimizer)


def test_saved_it_loads_without_the_package_frozen_where_it_was(tmp_path):
    for make in (flat, nested):
        new = kdx.replace_head(make(), L.Dense(3, name="new"))
        new.compile("adam", "mse")
        new.save(tmp_path / f"{make.__name__}.keras")
    script = (
        "import sys, keras\n"
        f"folder = {str(tmp_path)!r}\n"
        "models = [keras.models.load_model(f'{folder}/{name}.keras') for name in ('flat', 'nested')]\n"
        "assert 'keras_dnn_extras' not in sys.modules\n"
        "print([v.name for model in models for v in model.trainable_variables])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == str(["kernel", "bias"] * 2)


def test_inputs_are_those_of_the_model_also_where_the_body_does_not_need_them():
    a, b = keras.Input((6,), name="a"), keras.Input((3,), name="b")
    joined = L.Concatenate()([L.Dense(4, name="of_a")(a), b])
    model = keras.Model({"a": a, "b": b}, L.Dense(1)(joined))
    new = kdx.replace_head(model, L.Dense(2, name="new"), after="of_a")
    x = {"a": np.ones((4, 6), "float32"), "b": np.ones((4, 3), "float32")}
    assert new.predict(x, verbose=0).shape == (4, 2)


def test_a_head_that_keras_named_like_a_layer_of_the_body_gets_another_name():
    model = keras.Sequential([keras.Input((6,)), L.Dense(5, name="dense"), L.Dense(2, name="dense_1")])
    keras.backend.clear_session()  # as in another process: names begin anew
    new = kdx.replace_head(model, L.Dense(3))
    assert len({found.name for found in new.layers}) == 2
    built = L.Dense(3, name="own")
    clash = keras.Sequential([keras.Input((6,)), L.Dense(5, name="own"), L.Dense(2)])
    with pytest.raises(ValueError, match="another name"):
        kdx.replace_head(clash, built)


def test_layers_of_the_user_are_copied_by_their_config():
    class Scale(L.Layer):  # not registered
        def __init__(self, factor, **kwargs):
            super().__init__(**kwargs)
            self.factor = factor

        def call(self, x):
            return self.factor * x

        def get_config(self):
            return {**super().get_config(), "factor": self.factor}

    model = keras.Sequential([keras.Input((2,)), Scale(3.0), L.Dense(1)])
    new = kdx.replace_head(model, L.Identity())
    assert new.predict(np.ones((1, 2)), verbose=0).tolist() == [[3.0, 3.0]]


@pytest.mark.parametrize(
    ("make", "after", "told"),
    [
        (nested, "bodyy", "'body'"),
        (nested, "second", "'body/second'"),
        (subclassed, None, "code of its own"),
        (lambda: keras.Sequential([L.Dense(2)]), None, "no weights yet"),
        (lambda: keras.Sequential([keras.Input((2,)), L.Dense(2)]), None, "no layer but its head"),
        (lambda: keras.Sequential([keras.Input((6,)), nested()]), None, "is a model itself"),
    ],
)
def test_what_cannot_be_cut_is_an_error(make, after, told):
    with pytest.raises(ValueError, match=told):
        kdx.replace_head(make(), L.Dense(2, name="new"), after=after)


class Unnamed(keras.Model):
    """A nested model with code of its own, which does not tell its name in a config."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = L.Dense(4, name="inner")

    def call(self, x):
        return self.inner(x)

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls()


@pytest.mark.parametrize(("after", "told"), [("own", "has another name"), ("own/inner", "own|name")])
@pytest.mark.parametrize("sequential", [True, False])
def test_a_nested_model_with_code_of_its_own_is_an_error(after, told, sequential):
    inputs, own = keras.Input((6,)), Unnamed(name="own")
    layers = [inputs, own, L.Dense(2)]
    model = keras.Sequential(layers) if sequential else keras.Model(inputs, layers[2](own(inputs)))
    with pytest.raises(ValueError, match=told):
        kdx.replace_head(model, L.Dense(2), after=after)


def test_one_output_layer_of_several_calls_or_arguments_is_an_error():
    inputs, head = keras.Input((6,)), L.Dense(2, name="head")
    model = keras.Model(inputs, [head(L.Dense(3)(inputs)), head(L.Dense(3)(inputs))])
    with pytest.raises(ValueError, match="several calls: 'head'"):
        kdx.replace_head(model, L.Dense(2))
    model = keras.Model(inputs, L.Dense(6)(inputs) + inputs)
    with pytest.raises(ValueError, match="2 arguments"):
        kdx.replace_head(model, L.Dense(2))


def test_several_outputs_need_to_be_told_where():
    inputs = keras.Input((3,))
    middle = L.Dense(4, name="middle")(inputs)
    model = keras.Model(inputs, [L.Dense(1, name="a")(middle), L.Dense(1, name="b")(middle)])
    with pytest.raises(ValueError, match="'a', 'b'"):
        kdx.replace_head(model, L.Dense(2))
    assert kdx.replace_head(model, L.Dense(2), after="middle").output_shape == (None, 2)


def test_an_input_among_the_outputs_is_no_head():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, [L.Dense(1, name="a")(inputs), inputs])
    with pytest.raises(ValueError, match="several calls: 'a', an input"):
        kdx.replace_head(model, L.Dense(2))
    assert kdx.replace_head(model, L.Dense(2), after="a").layers[1].name == "a"
    with pytest.raises(ValueError, match="has no head to replace"):
        kdx.replace_head(keras.Model(inputs, inputs), L.Dense(2))


def test_the_body_may_be_the_input_layer_alone():
    model = keras.Model(inputs := keras.Input((3,), name="x"), L.Dense(1, name="a")(inputs))
    new_model = kdx.replace_head(model, L.Dense(2, name="b"), after="x")
    assert [layer.name for layer in new_model.layers] == ["x", "b"]


@pytest.mark.parametrize("head", [None, [], "dense", [L.Dense(2), 3], lambda x: x])
def test_no_head_is_an_error(head):
    with pytest.raises(TypeError, match="head"):
        kdx.replace_head(flat(), head)


def test_arguments_of_the_wrong_type_are_errors():
    with pytest.raises(TypeError, match="Keras model"):
        kdx.replace_head(L.Dense(2), L.Dense(2))
    with pytest.raises(TypeError, match="after"):
        kdx.replace_head(flat(), L.Dense(2), after=1)
    with pytest.raises(TypeError, match="freeze_body"):
        kdx.replace_head(flat(), L.Dense(2), freeze_body="yes")


# -- layers without a known output, preprocessors, and heads that do not fit -----------------------------


class Shapeless(L.Layer):
    """Tells no shape of its outputs, as a wrapped module of PyTorch."""

    def call(self, x):
        return 2.0 * x

    def compute_output_spec(self, *args, **kwargs):
        raise NotImplementedError


def shapeless():
    model = keras.Sequential(
        [keras.Input((6,)), L.Dense(4, name="inner"), Shapeless(name="body"), L.Dense(2)]
    )
    model(np.ones((1, 6), "float32"))
    return model


def of_torch():
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4))
    model = keras.Sequential([keras.Input((6,)), L.TorchModuleWrapper(net, name="body"), L.Dense(2)])
    model(np.ones((2, 6), "float32"))
    return model


torch_only = pytest.mark.skipif(keras.backend.backend() != "torch", reason="modules of PyTorch")


@pytest.mark.parametrize("make", [shapeless, pytest.param(of_torch, marks=torch_only)])
@pytest.mark.parametrize("after", [None, "body"])
def test_a_layer_that_tells_no_shape_is_named(make, after):
    with pytest.raises(ValueError, match=r"'body' does not tell the shape"):
        kdx.replace_head(make(), L.Dense(3), after=after)


@torch_only
def test_a_module_of_torch_that_tells_its_shape_is_copied_with_its_buffers():
    import torch

    class Wrapped(L.TorchModuleWrapper):
        def compute_output_spec(self, *args, **kwargs):
            return keras.KerasTensor((None, 4))

    net = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4))
    model = keras.Sequential([keras.Input((6,)), Wrapped(net, name="body"), L.Dense(2)])
    model.compile("sgd", "mse")
    fit(model)
    new = kdx.replace_head(model, L.Identity())
    x = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    net.eval()
    expected = net(torch.tensor(x)).detach().numpy()
    net.train()
    np.testing.assert_allclose(new.predict(x, verbose=0), expected, atol=1e-6)


class Task(keras.Model):
    """As the tasks of KerasHub: its `preprocessor` acts in `fit` and `predict`, and is not in the graph."""

    def __init__(self, backbone, preprocessor=None, **kwargs):
        super().__init__(backbone.inputs, L.Dense(2, name="logits")(backbone.outputs[0]), **kwargs)
        self.backbone, self._preprocessor = backbone, preprocessor

    @property
    def preprocessor(self):
        return self._preprocessor

    @preprocessor.setter
    def preprocessor(self, value):
        self._preprocessor = value

    def predict(self, x, **kwargs):
        return super().predict(self.preprocessor(x) if self.preprocessor else x, **kwargs)

    def get_config(self):
        return {"backbone": keras.layers.serialize(self.backbone), "name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(keras.layers.deserialize(config["backbone"]), name=config["name"])


def test_a_preprocessor_that_would_be_lost_is_an_error_with_both_ways_out():
    inputs = keras.Input((6,))
    backbone = keras.Model(inputs, L.Dense(4, name="features")(inputs), name="backbone")
    task = Task(backbone, preprocessor=lambda words: np.array([[len(word)] * 6 for word in words]))
    with pytest.raises(ValueError, match=r"its `preprocessor`.*replace_head\(model.backbone"):
        kdx.replace_head(task, L.Dense(3))
    x = task.preprocessor(["a", "abc"])
    kernel, bias = backbone.layers[-1].get_weights()
    assert kdx.replace_head(task.backbone, L.Identity(), after="features")(x).shape == (2, 4)
    task.preprocessor = None
    new = kdx.replace_head(task, L.Identity())
    np.testing.assert_allclose(new.predict(x, verbose=0), x @ kernel + bias, rtol=1e-5)


def test_a_preprocessor_in_the_graph_is_copied():
    class WithScaling(keras.Model):
        def __init__(self, **kwargs):
            inputs, preprocessor = keras.Input((6,)), L.Rescaling(2.0)
            super().__init__(inputs, L.Dense(2)(preprocessor(inputs)), name="scaled")
            self.preprocessor = preprocessor

    new = kdx.replace_head(WithScaling(), L.Identity())
    assert new.predict(np.ones((1, 6)), verbose=0).tolist() == [[2.0] * 6]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("make", [flat, nested])
def test_a_head_that_cannot_be_joined_keeps_its_name_and_is_in_no_graph(make, error):
    class Failing(L.Layer):
        def compute_output_spec(self, *args, **kwargs):
            raise error("not this one")

    model = make()
    head = L.Dense(3)
    head.name = "dense_9"
    model.layers[-1 if make is nested else 0].name = "dense_9"
    with pytest.raises(error, match="not this one"):
        kdx.replace_head(model, [head, Failing()], after=path(model, "second"))
    assert head.name == "dense_9"
    inputs = keras.Input((5,))
    outputs = head(inputs)
    assert keras.Model(inputs, head.output).outputs[0] is outputs


def test_a_layer_within_a_wrapper_is_no_place_to_cut_after():
    inner = keras.Sequential([keras.Input((3,)), L.Dense(2, name="dense")], name="inner")
    layers = [L.TimeDistributed(inner, name="steps"), L.Flatten(), L.Dense(1)]
    model = keras.Sequential([keras.Input((2, 3)), *layers])
    with pytest.raises(ValueError, match=r"'steps/inner/dense' is within a layer.*outer one"):
        kdx.replace_head(model, L.Dense(1), after="steps/inner/dense")


@pytest.mark.parametrize("make", [flat, nested])
@pytest.mark.parametrize("as_model", [True, False])
def test_a_head_is_not_built_by_a_call_that_fails(make, as_model):
    dense = L.Dense(3, name="last")
    unbuilt = [dense, L.Reshape((7,))]
    built_before = keras.Sequential([keras.Input((5,)), L.Dense(4)], name="before")
    head = [built_before, keras.Sequential(unbuilt, name="head")] if as_model else [built_before, *unbuilt]
    model = make()
    with pytest.raises(ValueError, match="Reshape"):
        kdx.replace_head(model, head, after=path(model, "second"))
    assert (dense.built, head[1].built, dense._inbound_nodes) == (False, False, [])
    dense.build((None, 9))  # it is free for another width
    assert dense.kernel.shape == (9, 3)


def test_a_failed_call_takes_back_the_nodes_of_layers_within_a_head_that_is_built():
    inner = L.Dense(4, name="inner")
    head = keras.Sequential([keras.Input((5,)), inner], name="head")
    counts = [len(part._inbound_nodes) for part in head._flatten_layers()]
    for last in (L.Reshape((7,)), keras.Sequential([keras.Input((9,)), L.Dense(1)])):
        with pytest.raises(ValueError, match=r"Reshape|incompatible"):
            kdx.replace_head(flat(), [head, last], after="second")
        assert [len(part._inbound_nodes) for part in head._flatten_layers()] == counts


@pytest.mark.parametrize("make", [flat, nested])
def test_a_trial_of_the_head_changes_neither_names_nor_nodes_nor_initial_weights(make, monkeypatch):
    def described():
        keras.utils.set_random_seed(1)
        new = kdx.replace_head(make(), [L.Dropout(0.5), L.Dense(3)])
        nodes = [(part.name, len(part._inbound_nodes), len(part._outbound_nodes)) for part in new.layers]
        return nodes, new.get_weights()[-2]

    nodes, kernel = described()
    monkeypatch.setattr("keras_dnn_extras.transfer.head_replacement.trial_copies", lambda heads: None)
    keras.backend.clear_session()
    plain_nodes, plain_kernel = described()
    assert [counts for _, *counts in nodes] == [counts for _, *counts in plain_nodes]
    np.testing.assert_array_equal(kernel, plain_kernel)


class Forgetful(L.Layer):
    """Does not tell its units, so that no copy of it is alike."""

    def __init__(self, units=7, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def call(self, x):
        return keras.ops.reshape(x, (-1, self.units))

    def get_config(self):
        return {"name": self.name}


def test_a_head_that_its_config_does_not_tell_is_not_refused_for_its_copy():
    head = [L.Dense(3), Forgetful(3), L.Dense(1), L.Reshape((1, 1))]
    assert kdx.replace_head(flat(), head).output_shape == (None, 1, 1)
