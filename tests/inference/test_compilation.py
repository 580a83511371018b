"""compile_for_inference: what it computes on each engine, what it refuses, and what it leaves as it was."""

import gc
import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import weakref
from typing import Literal, get_args

import keras
import numpy as np
import pytest
from fusion_models import inputs_of, randomized

import keras_dnn_extras as kdx
from keras_dnn_extras._graphs import equivalence
from keras_dnn_extras.inference import (
    compilation,
    engines,
    measuring,
    memory,
    numpy_activations,
    verification,
)
from keras_dnn_extras.inference.numpy_program import NotInNumpyError, array_program
from keras_dnn_extras.inference.signatures import caller, signature_of

L = keras.layers
BACKEND = keras.backend.backend()
NEEDED = {"onnxruntime": ["onnxruntime", "onnx"], "litert": ["ai_edge_litert"]}
NEEDED["onnxruntime"] += {"tensorflow": ["tf2onnx"], "jax": ["jax2onnx"], "torch": ["onnxscript"]}[BACKEND]
NEEDED["litert"] += ["litert_torch"] * (BACKEND == "torch")


def is_there(name):
    on_backend = BACKEND in engines.ENGINES[name][0]
    return on_backend and all(map(importlib.util.find_spec, NEEDED.get(name, [])))


THERE = [name for name in engines.ENGINES if is_there(name)]
COMPILED = [name for name in THERE if name != "numpy"]
FLEXIBLE = ["numpy", {"tensorflow": "graph", "jax": "xla", "torch": "eager"}[BACKEND]]
OWN = {"tensorflow": "graph", "jax": "xla", "torch": "trace"}[BACKEND]


@pytest.fixture(autouse=True)
def _in_little_time(monkeypatch):
    monkeypatch.setattr(measuring, "WARM_UP", 0.0)
    monkeypatch.setattr(measuring, "ROUNDS", 5)
    monkeypatch.setattr(measuring, "MEASURED", 0.02)


def dense_model(*extra):
    layers = [L.Dense(6, use_bias=False), L.BatchNormalization(), L.Activation("elu"), L.Dropout(0.5)]
    return randomized(keras.Sequential([keras.Input((5,)), *layers, L.Dense(3, "softmax"), *extra]))


def image_model():
    layers = []
    for name, layer in {
        "conv": L.Conv2D(4, 3, padding="same", use_bias=False),
        "depthwise": L.DepthwiseConv2D(3, padding="same"),
        "pointwise": L.Conv2D(5, 1),
    }.items():
        layers += [layer, L.BatchNormalization(name=f"bn_{name}"), L.ReLU()]
    layers += [L.GlobalAveragePooling2D(), L.Dense(3)]
    return randomized(keras.Sequential([keras.Input((6, 6, 3)), *layers]))


def named_model():
    """Two inputs in a dict, of which the second by name comes first in the graph, and two outputs."""
    zeta, alpha = keras.Input((3,), name="zeta"), keras.Input((4,), dtype="int32", name="alpha")
    hidden = L.Dense(3, "relu")(L.Concatenate()([zeta, L.Flatten()(L.Embedding(5, 2)(alpha))]))
    outputs = {"z": L.Dense(2)(hidden), "a": hidden}
    return randomized(keras.Model({"zeta": zeta, "alpha": alpha}, outputs))


def of_keras(model, x):
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(x, training=False))


def assert_close(found, expected, rounding=2.0**-24):
    """Compare arrays up to 64 roundings of the largest number."""
    assert found.shape == expected.shape
    limit = 64 * rounding * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=limit)


# -- what is computed ------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", THERE)
def test_each_engine_computes_what_the_model_does(engine):
    model = dense_model() if engine == "numpy" else image_model()
    fast = kdx.compile_for_inference(model, batch_size=2, engine=engine)
    x = inputs_of(model, 2, seed=7)[0]
    found = fast(x)
    assert type(found) is np.ndarray
    assert found.dtype == "float32"
    assert_close(found, of_keras(model, x))
    assert (fast.engine, fast.batch_size) == (engine, 2)
    assert 0 < fast.latency.p50 <= fast.latency.p99
    assert fast.report == kdx.fuse_batch_norm(model).report
    assert fast.candidates.measured.keys() == {engine}


@pytest.mark.parametrize("engine", COMPILED)
def test_inputs_and_outputs_in_dicts(engine):
    model = named_model()
    fast = kdx.compile_for_inference(model, batch_size=3, engine=engine)
    x = {"alpha": np.array([[0, 1, 2, 3]] * 3, "int32"), "zeta": np.ones((3, 3), "float32")}
    found, expected = fast(x), of_keras(model, x)
    assert found.keys() == expected.keys()
    for name in found:
        assert_close(found[name], expected[name])
    for wrong in ({**x, "more": x["zeta"]}, {"alpha": x["alpha"]}, [x["alpha"], x["zeta"]], x["zeta"]):
        with pytest.raises(ValueError, match="in the structure of the model's inputs"):
            fast(wrong)
    with pytest.raises(ValueError, match=r"Pass `x\['alpha'\].astype\(\"int32\"\)`"):
        fast({**x, "alpha": x["alpha"].astype("int64")})


def test_inputs_and_outputs_in_lists():
    first, second = keras.Input((3,)), keras.Input((3,))
    outputs = [L.Subtract()([first, second]), (L.Add()([first, second]), L.ReLU()(first))]
    fast = kdx.compile_for_inference(keras.Model([first, second], outputs), engine="numpy")
    x = [np.array([[1.0, -2.0, 3.0]], "float32"), np.ones((1, 3), "float32")]
    for given in (x, tuple(x)):
        difference, (total, positive) = fast(given)
        np.testing.assert_array_equal(difference, x[0] - x[1])
        np.testing.assert_array_equal(total, x[0] + x[1])
        np.testing.assert_array_equal(positive, [[1, 0, 3]])
    with pytest.raises(ValueError, match=r"Expected x\[1\] to be of shape \(1, 3\)"):
        fast([x[0], x[1][0]])


def test_a_single_input_may_be_in_a_list():
    fast = kdx.compile_for_inference(dense_model(), engine="numpy")
    x = np.ones((1, 5), "float32")
    np.testing.assert_array_equal(fast([x]), fast(x))


def test_recurrent_layers_that_draw_masks_and_do_not_use_them():
    gru = L.GRU(2, dropout=0.2, recurrent_dropout=0.2, seed=1)
    model = randomized(keras.Sequential([keras.Input((2, 2)), gru]))
    x = inputs_of(model, 1, seed=7)[0]
    assert_close(kdx.compile_for_inference(model, engine=OWN)(x), of_keras(model, x))


def test_bfloat16_is_returned_as_keras_does():
    model = keras.Sequential(
        [keras.Input((5,)), L.Dense(3, dtype="mixed_bfloat16"), L.ReLU(dtype="bfloat16")]
    )
    x = np.ones((1, 5), "float32")
    found, expected = kdx.compile_for_inference(model, engine=OWN)(x), of_keras(model, x)
    assert found.dtype == expected.dtype == "bfloat16"
    assert_close(found.astype("float32"), expected.astype("float32"), 2.0**-8)


@pytest.mark.parametrize("engine", COMPILED)
def test_half_precision(engine):
    half = "mixed_float16"
    layers = [L.Dense(8, "relu", dtype=half), L.BatchNormalization(dtype=half), L.Dense(3, dtype=half)]
    model = randomized(keras.Sequential([keras.Input((5,)), *layers]))
    x = np.ones((1, 5), "float32")
    try:
        fast = kdx.compile_for_inference(model, engine=engine)
    except ValueError as error:  # onnxruntime has no such operations for CPUs, and says so
        assert engine in NEEDED, error  # noqa: PT017
        return
    assert fast(x).dtype == "float16"
    assert_close(fast(x).astype("float32"), of_keras(model, x).astype("float32"), 2.0**-11)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Keras computes with float32 there")
@pytest.mark.parametrize("engine", ["numpy", "graph"])
def test_float64(engine):
    stack = [L.Dense(4, "selu", dtype="float64"), L.Dense(2, dtype="float64")]
    model = randomized(keras.Sequential([keras.Input((5,), dtype="float64"), *stack]))
    x = np.random.default_rng(0).normal(size=(1, 5))
    fast = kdx.compile_for_inference(model, engine=engine)
    assert_close(fast(x), of_keras(model, x), 2.0**-53)


@keras.saving.register_keras_serializable("test_inference")
class Own(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = L.Dense(3)
        self.norm = L.BatchNormalization()

    def call(self, inputs, training=False):
        return {"y": self.norm(self.dense(inputs["x"]), training=training)}


def test_a_model_of_its_own_call_is_compiled_as_it_is():
    model = Own()
    x = {"x": np.ones((4, 5), "float32")}
    model(x)
    randomized(model)
    fast = kdx.compile_for_inference(model, batch_size=4)
    assert fast.report is None
    assert fast.engine in (OWN, "xla", "eager")
    assert "`call` of its own" in fast.candidates.left_out["numpy"]
    assert_close(fast(x)["y"], of_keras(model, x)["y"])


# -- NumPy -----------------------------------------------------------------------------------------------

LARGE = np.array([-1e4, -300.0, -88.0, -30.0, -4.0, -1.0, -1e-3, -1e-6, 0.0], "float32")
NUMBERS = np.concatenate([LARGE, -LARGE, np.linspace(-8, 8, 101, dtype="float32")])[None]


def sigmoid(x):
    return np.where(x < 0, np.exp(np.minimum(x, 0)), 1.0) / (1 + np.exp(-np.abs(x)))


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def hard_sigmoid(x):
    return np.clip(x / 6 + 0.5, 0, 1)


def softmax(x):
    powers = np.exp(x - x.max())
    return powers / powers.sum()


DEFINITIONS = {
    "relu": lambda x: np.where(x > 0, x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "elu": elu,
    "celu": elu,
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * elu(x)),
    "sigmoid": sigmoid,
    "silu": lambda x: x * sigmoid(x),
    "softplus": lambda x: np.logaddexp(x, 0),
    "log_sigmoid": lambda x: -np.logaddexp(-x, 0),
    "mish": lambda x: x * np.tanh(np.logaddexp(x, 0)),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "hard_sigmoid": hard_sigmoid,
    "hard_silu": lambda x: x * hard_sigmoid(x),
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "hard_shrink": lambda x: np.where(np.abs(x) > 0.5, x, 0),
    "soft_shrink": lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0),
    "tanh": np.tanh,
    "tanh_shrink": lambda x: x - np.tanh(x),
    "exponential": np.exp,
    "sparse_plus": lambda x: np.where(x <= -1, 0, np.where(x >= 1, x, (x + 1) ** 2 / 4)),
    "sparse_sigmoid": lambda x: np.clip((x + 1) / 2, 0, 1),
    "squareplus": lambda x: (x + np.sqrt(x * x + 4)) / 2,
    "softmax": softmax,
    "log_softmax": lambda x: x - x.max() - np.log(np.exp(x - x.max()).sum()),
}


@pytest.mark.parametrize("name", sorted(numpy_activations.KERNELS))
def test_activations_in_numpy_are_those_of_their_definitions_also_for_large_numbers(name):
    x = NUMBERS[NUMBERS < 80][None] if name == "exponential" else NUMBERS
    model = keras.Sequential([keras.Input(x.shape[1:]), L.Activation(name)])
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        found = array_program(model)([x])[0]
    expected = DEFINITIONS[name](x.astype("float64"))
    # 8 roundings of the result, and of what is subtracted from what: numbers up to 8 in the middle part.
    limit = 8 * 2.0**-24 * (np.abs(expected) + np.minimum(np.abs(x), 8))
    if name in ("squareplus", "log_softmax"):  # which subtract large numbers, as they do in Keras
        limit = 8 * 2.0**-24 * (1 + np.abs(x).max())
    assert found.dtype == "float32"
    assert np.all(np.abs(found - expected) <= limit + 1e-37)


def program_of(outputs, inputs):
    return array_program(keras.Model(inputs, outputs))


def branches(x):
    hidden = L.Dense(4)(x)  # is taken three times: nobody may work in it
    return L.Concatenate()([L.ReLU()(hidden), L.Multiply()([hidden, L.ELU(0.5)(hidden), hidden])])


def outputs_within(x):
    hidden = L.Dense(4)(x)
    flat = L.Flatten()(L.Reshape((2, 2))(hidden))
    return [hidden, L.ReLU()(flat), L.Activation("tanh")(L.Dropout(0.3)(hidden)), hidden]


STACKS = {
    "branches": (branches, (5,)),
    "outputs within": (outputs_within, (5,)),
    "input as output": (lambda x: [x, L.Reshape((5, 1))(x), L.ReLU()(x)], (5,)),
    "sequences": (
        lambda x: L.Dense(4, "log_softmax", use_bias=False)(L.Dense(3, "silu")(x)),
        (2, 5),
    ),
    "PReLU": (lambda x: L.PReLU(shared_axes=[1])(x), (2, 3)),
    "LeakyReLU above 1": (lambda x: L.LeakyReLU(1.5)(x), (5,)),
    "ReLU": (lambda x: L.ReLU(max_value=1.0, negative_slope=0.1, threshold=0.2)(x), (9,)),
    "ReLU up to 6": (lambda x: L.ReLU(max_value=0.5)(x), (9,)),
    "Softmax": (lambda x: L.Softmax(axis=(1, 2))(x), (2, 3)),
    "BatchNormalization": (lambda x: L.BatchNormalization(axis=1)(L.ReLU()(x)), (2, 3)),
    "no center": (lambda x: L.BatchNormalization(center=False, scale=False)(L.ReLU()(x)), (5,)),
    "Normalization": (lambda x: L.Normalization(mean=[1, 2, 3], variance=[0.5, 0, 4])(x), (3,)),
    "inverted": (lambda x: L.Normalization(mean=[1, 2], variance=[0.5, 4], invert=True)(x), (2,)),
    "Rescaling": (lambda x: L.Rescaling(0.5, -1.0)(x), (4,)),
    "joins": (
        lambda x: L.Maximum()([L.Dense(5)(x), L.Minimum()([x, L.Subtract()([x, L.ReLU()(x)])])]),
        (5,),
    ),
    "nested": (lambda x: dense_model(L.ReLU())(x), (5,)),
}


@pytest.mark.parametrize("stack", STACKS)
def test_stacks_in_numpy_compute_what_keras_does_and_leave_their_inputs(stack):
    build, shape = STACKS[stack]
    inputs = keras.Input(shape)
    model = randomized(keras.Model(inputs, build(inputs)))
    x = np.random.default_rng(3).normal(size=(2, *shape)).astype("float32")
    before = x.copy()
    found = array_program(model)([x])
    np.testing.assert_array_equal(x, before)
    expected = keras.tree.flatten(of_keras(model, x))
    for array, other in zip(found, expected, strict=True):
        assert_close(array, other)
    for array in found:
        assert not np.shares_memory(array, x)
        assert sum(np.shares_memory(array, other) for other in found) == 1


NOT_IN_NUMPY = {
    "Conv1D": lambda: [keras.Input((4, 2)), L.Conv1D(2, 2)],
    "activation 'gelu'": lambda: [keras.Input((4,)), L.Dense(2, "gelu")],
    "int32": lambda: [keras.Input((4,), dtype="int32"), L.Dense(2)],
    "takes more than one tensor": lambda: [keras.Input((4, 2)), L.Masking(), L.Softmax()],
}


@pytest.mark.parametrize("reason", NOT_IN_NUMPY)
def test_what_numpy_does_not_do_is_told(reason):
    model = keras.Sequential(NOT_IN_NUMPY[reason]())
    with pytest.raises(NotInNumpyError) as caught:
        array_program(model)
    if reason != "takes more than one tensor":  # Masking itself is not known either
        assert reason in str(caught.value)


# -- TensorFlow's graph ----------------------------------------------------------------------------------


def nodes_that_run(compiled):
    """Return the nodes of the graphs that TensorFlow runs, after its own optimizer, while they are new."""
    from tensorflow.python.eager import context

    context.enable_run_metadata()
    try:
        compiled()
        metadata = context.export_run_metadata()
    finally:
        context.disable_run_metadata()
    graphs = [graph.post_optimization_graph for graph in metadata.function_graphs]
    return [node for graph in graphs for node in [*graph.node, *_in_functions(graph)]]


def _in_functions(graph):
    return [node for function in graph.library.function for node in function.node_def]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow's graph")
def test_the_graph_that_runs_has_one_node_for_each_convolution_and_no_normalization():
    model = image_model()
    truth = verification.Truth(model, signature_of(model, 1))  # computed before, without a graph
    fused = kdx.fuse_batch_norm(model).model
    run = engines.built_engine("graph", fused, signature_of(model, 1))
    nodes = nodes_that_run(lambda: truth.check(run))
    kinds = [node.op for node in nodes]
    print(kinds)
    fused_ops = {
        node.op: [name.decode() for name in node.attr["fused_ops"].list.s]
        for node in nodes
        if node.op.startswith("_Fused")
    }
    assert kinds.count("_FusedConv2D") == 2
    assert kinds.count("_FusedDepthwiseConv2dNative") == 1
    assert fused_ops["_FusedConv2D"] == fused_ops["_FusedDepthwiseConv2dNative"] == ["BiasAdd", "Relu"]
    left = {"Rsqrt", "Mul", "AddV2", "Sub", "Conv2D", "DepthwiseConv2dNative", "ReadVariableOp", "Relu"}
    assert not left & set(kinds)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow's tables")
def test_tables_of_strings_within():
    inputs = keras.Input((2,), dtype="int64")
    lookup = L.IntegerLookup(vocabulary=[7, 9])
    model = keras.Model(inputs, L.Flatten()(L.Embedding(4, 2)(lookup(inputs))))
    fast = kdx.compile_for_inference(model, engine="graph")
    x = np.array([[9, 5]])
    expected = of_keras(model, x)
    del model, lookup, inputs
    gc.collect()
    np.testing.assert_array_equal(fast(x), expected)


# -- which engine ----------------------------------------------------------------------------------------


def with_engines(monkeypatch, **others):
    monkeypatch.setattr(engines, "ENGINES", {name: ((BACKEND,), build) for name, build in others.items()})
    monkeypatch.setattr(engines, "Engine", Literal["auto", *others])


def test_each_engine_has_a_name_that_type_checkers_know():
    assert get_args(engines.Engine) == ("auto", *engines.ENGINES)


def exact(model, signature):
    return array_program(model)


def slow(model, signature):
    run = exact(model, signature)
    return lambda arrays: (time.sleep(2e-3), run(arrays))[1]


def wrong(model, signature):
    run = exact(model, signature)
    return lambda arrays: [array * 1.001 for array in run(arrays)]


def broken(model, signature):
    raise RuntimeError("\n  no such kernel\nand much more")


def failing(model, signature):
    def run(arrays):
        raise RuntimeError("out of luck")

    return run


def test_the_fastest_engine_that_agrees_is_chosen(monkeypatch):
    with_engines(monkeypatch, slow=slow, wrong=wrong, exact=exact, broken=broken, failing=failing)
    fast = kdx.compile_for_inference(dense_model())
    assert fast.engine == "exact"
    assert fast.candidates.measured["slow"] > 2e-3 > fast.candidates.measured["exact"]
    assert fast.candidates.left_out.keys() == {"wrong", "broken", "failing"}
    told = str(fast.candidates)
    assert told.index("exact") < told.index("slow") < told.index("wrong")
    assert "differ from the model's by 1.0e-03" in told
    assert "RuntimeError: no such kernel" in told
    assert "RuntimeError: out of luck" in told


def test_an_engine_that_cannot_is_an_error_with_those_that_can(monkeypatch):
    with_engines(monkeypatch, slow=slow, wrong=wrong, exact=exact)
    with pytest.raises(
        ValueError, match=r"'wrong' cannot run .* differ.* Pass one that can: 'slow', 'exact'"
    ):
        kdx.compile_for_inference(dense_model(), engine="wrong")
    with_engines(monkeypatch, wrong=wrong, broken=broken)
    with pytest.raises(ValueError, match="No engine can run the model"):
        kdx.compile_for_inference(dense_model())
    with pytest.raises(ValueError, match="No other can either"):
        kdx.compile_for_inference(dense_model(), engine="broken")


@pytest.mark.slow
def test_an_engine_of_another_backend_or_not_installed_is_told(monkeypatch):
    other = {"tensorflow": "trace", "jax": "graph", "torch": "graph"}[BACKEND]
    with pytest.raises(ValueError, match=f"not with the {BACKEND} backend. Pass one that can: 'numpy'"):
        kdx.compile_for_inference(dense_model(), engine=other)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"not installed: onnxruntime.*`python -m pip install onnxruntime"):
        kdx.compile_for_inference(dense_model(), engine="onnxruntime")


@pytest.mark.slow
def test_auto_measures_all_that_are_there():
    fast = kdx.compile_for_inference(dense_model())
    assert fast.candidates.measured.keys() == set(THERE)
    assert fast.engine == min(fast.candidates.measured, key=fast.candidates.measured.get)
    assert set(fast.candidates.left_out) == set(engines.ENGINES) - set(THERE)


# -- one signature ---------------------------------------------------------------------------------------

X = np.ones((2, 5), "float32")
WRONG = {
    "Each call takes as many rows: pass 2 of them, or .*batch_size=3": np.ones((3, 5), "float32"),
    "is fixed when the model is compiled": X[:, :4],
    r"shape \(2, 5\).*Received: x.shape=\(5,\)": X[0],
    r"Pass `x.astype\(\"float32\"\)`. Received: x.dtype=float64": X.astype("float64"),
    "Received: x.dtype=int64": X.astype("int64"),
    "Received: x.dtype=>f4": X.astype(">f4"),
    r"Pass `np.asarray\(x, \"float32\"\)`. Received: x=list": X.tolist(),
    "Received: x=NoneType": None,
    "Received: x=dict": {"x": X},
    "Received: x=tuple": (X, X),
}


@pytest.mark.parametrize("told", WRONG)
def test_wrong_inputs_are_refused_with_the_remedy(told):
    fast = kdx.compile_for_inference(dense_model(), batch_size=2, engine="numpy")
    with pytest.raises(ValueError, match=told):
        fast(WRONG[told])
    fast(X)


def test_a_row_without_its_axis_is_told_how_to_get_it():
    fast = kdx.compile_for_inference(dense_model(), engine="numpy")
    with pytest.raises(ValueError, match=r"`x\[None\]`"):
        fast(X[0])


@pytest.mark.parametrize("engine", [OWN, "numpy"])
def test_arrays_of_any_memory(engine):
    model = dense_model()
    fast = kdx.compile_for_inference(model, batch_size=2, engine=engine)
    x = np.random.default_rng(0).normal(size=(2, 5)).astype("float32")
    fixed = x.copy()
    fixed.flags.writeable = False
    backwards = x[:, ::-1].copy()[:, ::-1]
    for given in (np.asfortranarray(x), fixed, backwards, x.view(np.matrix)):
        assert_close(fast(given), of_keras(model, x))


# -- any number of rows, and any length ------------------------------------------------------------------


@pytest.mark.parametrize("engine", FLEXIBLE)
def test_any_number_of_rows(engine):
    model = dense_model(L.Reshape((3, 1)), L.Flatten())
    fast = kdx.compile_for_inference(model, batch_size=None, engine=engine)
    assert fast.batch_size is None
    for rows in (1, 4):
        x = np.random.default_rng(rows).normal(size=(rows, 5)).astype("float32")
        assert_close(fast(x), of_keras(model, x))
    if engine == "numpy":
        assert fast(X[:0]).shape == (0, 3)
    with pytest.raises(ValueError, match=r"of shape \(None, 5\). Add the axis of the batch"):
        fast(X[0])
    with pytest.raises(ValueError, match=r"is fixed when .* Received: x.shape=\(2, 4\)"):
        fast(X[:, :4])


def test_inputs_of_different_numbers_of_rows_are_refused_where_any_number_may_come():
    first, second = keras.Input((3,)), keras.Input((3,))
    fast = kdx.compile_for_inference(
        keras.Model([first, second], L.Add()([first, second])), batch_size=None, engine="numpy"
    )
    x = np.ones((4, 3), "float32")
    np.testing.assert_array_equal(fast([x, x]), 2 * x)
    with pytest.raises(
        ValueError, match=r"as many rows. Received: x\[0\].shape=\(4, 3\), x\[1\].shape=\(1, 3"
    ):
        fast([x, x[:1]])  # NumPy would broadcast them


@keras.saving.register_keras_serializable("test_inference")
class Places(L.Layer):
    """A trained vector for each of 9 places: longer texts are an error."""

    def build(self, shape):
        self.vectors = self.add_weight(shape=(9, shape[-1]), initializer="normal")

    def call(self, x):
        return x + self.vectors[: keras.ops.shape(x)[1]]

    def compute_output_shape(self, shape):
        return shape


def text_model():
    """Ids and a mask of flexible length, in a dict."""
    ids, mask = (keras.Input((None,), dtype="int32", name=name) for name in ("ids", "mask"))
    words = Places()(L.Embedding(30, 4)(ids)) * keras.ops.expand_dims(keras.ops.cast(mask, "float32"), -1)
    return randomized(keras.Model({"ids": ids, "mask": mask}, L.Dense(2)(keras.ops.sum(words, axis=1))))


def texts(rows, length, seed=0):
    ids = np.random.default_rng(seed).integers(0, 30, (rows, length)).astype("int32")
    return {"ids": ids, "mask": np.tril(np.ones((rows, length), "int32"))}


def test_sample_data_lets_a_model_of_flexible_length_be_compiled_for_any_length():
    model = text_model()
    fast = kdx.compile_for_inference(model, batch_size=None, inputs=texts(3, 6))
    assert fast.engine == FLEXIBLE[1]
    for rows, length in ((1, 6), (3, 2), (2, 9)):
        x = texts(rows, length, 1)
        assert_close(fast(x), of_keras(model, x))
    with pytest.raises(ValueError, match=r"failed on inputs of shape \(2, 10\), .*`model.predict` takes"):
        fast(texts(2, 10))
    of_one = kdx.compile_for_inference(model, inputs=texts(3, 6))
    assert_close(of_one(texts(1, 4)), of_keras(model, texts(1, 4)))
    with pytest.raises(ValueError, match=r"of shape \(1, None\). Each call takes as many rows: pass 1"):
        of_one(texts(2, 6))


def test_without_sample_data_or_with_an_engine_of_one_shape_flexible_lengths_are_refused():
    with pytest.raises(ValueError, match="Pass such data as `inputs`"):
        kdx.compile_for_inference(text_model(), batch_size=None)
    fixed = {"tensorflow": "xla", "jax": "numpy", "torch": "trace"}[BACKEND]
    remedy = "one of floats" if BACKEND == "jax" else r"shape only, not \(1, None\).*has all lengths"
    with pytest.raises(ValueError, match=f"{remedy}.*Pass one that can: '{FLEXIBLE[1]}'"):
        kdx.compile_for_inference(text_model(), engine=fixed, inputs=texts(2, 6))
    if BACKEND != "jax":
        with pytest.raises(ValueError, match=r"Pass an int as `batch_size`\. Pass one that can: 'numpy', "):
            kdx.compile_for_inference(dense_model(), engine=fixed, batch_size=None)


@keras.saving.register_keras_serializable("test_inference")
class OwnOfIds(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embedding = L.Embedding(7, 3)
        self.dense = L.Dense(2)

    def call(self, inputs):
        return self.dense(keras.ops.max(self.embedding(inputs[0]), axis=1) * inputs[1])


def test_a_model_of_its_own_call_takes_what_the_sample_data_are_like():
    model = OwnOfIds()
    x = [np.array([[0, 6, 3], [1, 2, 5]], "int32"), np.ones((2, 1), "float32")]
    model(x)
    fast = kdx.compile_for_inference(model, batch_size=2, inputs=x)
    assert_close(fast(x), of_keras(model, x))
    with pytest.raises(ValueError, match=r"`x\[0\].astype\(\"int32\"\)`"):
        fast([x[0].astype("float32"), x[1]])
    with pytest.raises(ValueError, match="one row at least"):
        kdx.compile_for_inference(model, inputs=[array[:0] for array in x])


def test_engines_are_compared_on_the_sample_data(monkeypatch):
    """It is right everywhere except above 100, where random inputs do not come."""

    def wrong_above(model, signature):
        run = array_program(model)
        return lambda arrays: [array + np.any(arrays[0] > 100) for array in run(arrays)]

    with_engines(monkeypatch, wrong_above=wrong_above)
    assert kdx.compile_for_inference(dense_model()).engine == "wrong_above"
    sample = np.linspace(0, 200, 20).reshape(4, 5)
    for rows in (1, 3, 8, None):
        with pytest.raises(ValueError, match="wrong_above  left out: its outputs differ"):
            kdx.compile_for_inference(dense_model(), batch_size=rows, inputs=sample)


def test_ids_of_the_whole_vocabulary_are_compared(monkeypatch):
    model = keras.Sequential([keras.Input((8,), dtype="int32"), L.Embedding(40, 2)])

    def of_two_ids(model, signature):
        table = np.array(model.get_weights()[0])
        return lambda arrays: [table[np.minimum(arrays[0], 1)]]

    with_engines(monkeypatch, of_two_ids=of_two_ids)
    with pytest.raises(ValueError, match="its outputs differ"):
        kdx.compile_for_inference(model)


def test_a_model_that_makes_nothing_finite_of_random_inputs_needs_sample_data():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, L.Dense(2)(keras.ops.log(inputs - 50.0)))
    with pytest.raises(ValueError, match=r"nothing in an output is finite.*Pass sample data as `inputs`"):
        kdx.compile_for_inference(model)
    x = np.array([[51.0, 60.0, 100.0]], "float32")
    fast = kdx.compile_for_inference(model, engine=OWN, inputs=x)
    assert_close(fast(x), of_keras(model, x))
    with pytest.raises(
        ValueError, match=r"nowhere finite\. Pass other rows. Received: model=.*inputs of shapes"
    ):
        kdx.compile_for_inference(model, inputs=-x)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="has no strings")
def test_a_model_that_returns_strings_is_refused():
    table = L.StringLookup(vocabulary=["tea", "milk"], invert=True)
    model = functional(lambda x: [table(x), x + 1], (3,), dtype="int64")
    for inputs in (None, np.ones((2, 3), "int64")):
        with pytest.raises(
            ValueError, match=r"Expected the model to return numbers.*dtypes \['object', 'int64'\]"
        ):
            kdx.compile_for_inference(model, inputs=inputs)


def test_memory_that_is_short_is_no_fault_of_the_shape():
    def short(arrays):
        raise MemoryError("no more")

    run = caller(short, signature_of(dense_model(), None), 0)
    with pytest.raises(MemoryError, match="no more"):
        run(np.ones((2, 5), "float32"))


# -- calls do not disturb one another, or the model ------------------------------------------------------


@pytest.mark.parametrize("engine", THERE)
def test_eight_threads_get_their_own_results(engine):
    model = dense_model()
    fast = kdx.compile_for_inference(model, engine=engine)
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(1, 5)).astype("float32") for _ in range(8)]
    alone = [fast(x) for x in inputs]
    found, ready = [None] * 8, threading.Barrier(8)

    def work(i):
        ready.wait()
        found[i] = [fast(inputs[i]) for _ in range(100)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for results, expected in zip(found, alone, strict=True):
        for result in results:  # all of them are still there: no buffer was used again
            np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("engine", THERE)
def test_what_is_returned_belongs_to_the_caller(engine):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [L.ReLU()(inputs), L.Reshape((4,))(inputs)])
    fast = kdx.compile_for_inference(model, engine=engine)
    x = np.ones((1, 4), "float32")
    first = fast(x)
    for array in first:
        array[:] = 7.0
    np.testing.assert_array_equal(x, 1.0)
    for array in fast(x):
        np.testing.assert_array_equal(array, 1.0)


@pytest.mark.parametrize("engine", THERE)
@pytest.mark.parametrize("kind", ["sequential", "own"])
def test_neither_training_nor_deleting_the_model_changes_what_was_compiled(engine, kind):
    x = np.ones((4, 5), "float32")
    model, given = (dense_model(), x) if kind == "sequential" else (Own(), {"x": x})
    model(given)
    if kind == "own" and engine not in (OWN, "xla"):
        return
    fast = kdx.compile_for_inference(model, batch_size=4, engine=engine)
    before = keras.tree.flatten(fast(given))[0].copy()
    target = before + 1 if kind == "sequential" else {"y": before + 1}
    model.compile(keras.optimizers.SGD(0.5), "mse")
    model.fit(given, target, epochs=2, verbose=0)
    after = keras.tree.flatten(of_keras(model, given))[0]
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_array_equal(keras.tree.flatten(fast(given))[0], before)
    del model
    gc.collect()
    np.testing.assert_array_equal(keras.tree.flatten(fast(given))[0], before)


@pytest.mark.slow
def test_the_model_stays_as_it_was():
    shared = L.Dense(4, name="shared")
    inputs = keras.Input((4,))
    hidden = L.Dropout(0.3, seed=1)(shared(shared(inputs)))
    model = randomized(keras.Model(inputs, L.BatchNormalization()(hidden)))
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 4)), np.ones((4, 4)), verbose=0)

    def state():
        nodes = [
            (len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in model._flatten_layers()
        ]
        seeds = [keras.ops.convert_to_numpy(v).tolist() for v in model.variables]
        optimizer = [keras.ops.convert_to_numpy(v).tolist() for v in model.optimizer.variables]
        return nodes, seeds, optimizer, model.get_config(), model.compiled

    before = state()
    kdx.compile_for_inference(model)
    assert state() == before


def state_of(model):
    """Return all that a refused call must leave alone."""
    values = [keras.ops.convert_to_numpy(v).tolist() for v in model.variables + model.optimizer.variables]
    flags = [layer.trainable for layer in model._flatten_layers()]
    generators = [np.random.get_state()[1].tolist()]
    if BACKEND == "torch":
        import torch

        generators.append(torch.get_rng_state().tolist())
    return values, flags, generators, model.get_config(), sys.stdout, [*warnings.filters]


@pytest.mark.slow
@pytest.mark.parametrize("told", ["draws random numbers", "No engine can run", "need .* GB", "one row"])
def test_a_refused_call_changes_nothing(told, monkeypatch):
    model = dense_model(*[Noisy()] * (told == "draws random numbers"), L.Dropout(0.5))
    model.layers[0].trainable = False
    model.compile("adam", "mse")
    model.fit(np.ones((4, 5)), np.ones((4, 3)), verbose=0)
    arguments = {"one row": {"inputs": np.ones((0, 5))}, "need .* GB": {"batch_size": 2**31}}
    with_engines(monkeypatch, broken=broken, failing=failing)
    before = state_of(model)
    with pytest.raises(ValueError, match=told):
        kdx.compile_for_inference(model, **arguments.get(told, {}))
    assert state_of(model) == before


@pytest.mark.parametrize("engine", THERE)
def test_engines_print_nothing_and_no_warning_stops_them(engine, capfd, caplog):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error")
        engines.built_engine(engine, dense_model(), signature_of(dense_model(), 1))
    assert not caught
    assert not [record for record in caplog.records if record.levelno <= logging.WARNING]
    assert capfd.readouterr().out == ""


# -- memory ----------------------------------------------------------------------------------------------


GROWTH = """
import contextlib, ctypes, gc, os, sys
import keras, numpy as np
from keras_dnn_extras.inference import engines
from keras_dnn_extras.inference.signatures import signature_of

def memory_of_process():
    gc.collect()
    with contextlib.suppress(AttributeError):  # not of the GNU C library
        ctypes.CDLL(None).malloc_trim(0)  # gives back what was freed
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

model = keras.Sequential([keras.Input((1500,)), keras.layers.Dense(1500)])  # 9 MB
signature, x = signature_of(model, 1), [np.ones((1, 1500), "float32")]
for i in range(8):
    run = engines.built_engine(sys.argv[1], model, signature)
    for _ in range(3):
        run(x)
    del run
    if i == 1:
        before = memory_of_process()
print(memory_of_process() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the memory is not told there")
@pytest.mark.parametrize("engine", sorted({OWN, *FLEXIBLE, *({"xla"} & set(THERE))}))
def test_what_an_engine_holds_is_released_with_it(engine):
    # In a process of its own: what other tests have left in one moves with the memory. So do the buffers
    # through which JAX reads and writes its persistent cache: up to six copies of the weights.
    env = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    command = [sys.executable, "-c", GROWTH, engine]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert int(result.stdout.split()[-1]) < 27e6  # of 54 MB that one copy of the weights each would be


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow's graphs")
def test_graphs_are_collected_with_the_compiled_model():
    from tensorflow.python.eager import context

    kdx.compile_for_inference(dense_model(), engine="graph")
    gc.collect()
    before = set(context.context().list_function_names())
    fast = kdx.compile_for_inference(dense_model(), engine="graph")
    assert set(context.context().list_function_names()) - before
    del fast
    gc.collect()
    assert not set(context.context().list_function_names()) - before


@pytest.mark.slow
def test_the_fused_model_is_collected_with_what_was_compiled_of_it(monkeypatch):
    fused, build = [], engines.built_engine

    def built_engine(name, model, signature):
        fused.append(weakref.ref(model))
        return build(name, model, signature)

    monkeypatch.setattr(engines, "built_engine", built_engine)
    for engine in THERE:
        fast = kdx.compile_for_inference(dense_model(), engine=engine)
        del fast
    gc.collect()
    assert [name for name, model in zip(THERE, fused, strict=True) if model() is not None] == []


# -- private names -----------------------------------------------------------------------------------------


@pytest.mark.skipif(BACKEND != "torch", reason="of Keras's PyTorch backend")
def test_engines_of_pytorch_need_no_private_module_of_keras(monkeypatch):
    model = dense_model()
    monkeypatch.setitem(sys.modules, "keras.src.backend.torch.core", None)
    for engine in ("trace", "eager"):
        assert kdx.compile_for_inference(model, engine=engine).engine == engine


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow's functions")
@pytest.mark.parametrize("engine", ["graph", "xla"])
def test_graphs_are_called_without_private_names_too(engine, monkeypatch):
    model, x = dense_model(), np.ones((1, 5), "float32")
    monkeypatch.setattr(engines, "_FAST_CALL", "renamed")
    run = engines.built_engine(engine, model, signature_of(model, 1))
    assert_close(run([x])[0], of_keras(model, x))


@pytest.mark.parametrize("engine", sorted(set(NEEDED) & set(THERE)))
def test_exported_files_are_removed(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kdx.compile_for_inference(dense_model(), engine=engine)
    assert os.listdir(tmp_path) == []


# -- what is refused -------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("test_inference")
class Noisy(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seed_generator)


@keras.saving.register_keras_serializable("test_inference")
class OwnThatDraws(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seed_generator)

    @classmethod
    def called(cls):
        model = cls()
        model(np.ones((1, 3), "float32"))
        return model


def functional(build, *args, **kwargs):
    inputs = keras.Input(*args, **kwargs)
    return keras.Model(inputs, build(inputs))


REFUSED = {
    "gave different outputs.*Build the model without 'noisy'": lambda: functional(
        Noisy(name="noisy"), (3,)
    ),
    "Two calls of the model gave different outputs.*without the layer that does so": OwnThatDraws.called,
    "mc_predict.*layers=.*'mc'": lambda: dense_model(kdx.MCDropout(0.5, seed=1, name="mc")),
    "'drop' is called with `training=True`.*mc_predict": lambda: functional(
        lambda x: L.Dropout(0.5, name="drop")(x, training=True), (3,)
    ),
    "'lstm' is called with `training=True`": lambda: functional(
        lambda x: L.LSTM(2, dropout=0.1, name="lstm")(x, training=True), (3, 2)
    ),
    "'inner' is called with `training=True`": lambda: functional(
        lambda x: keras.Sequential([L.Dropout(0.5)], name="inner")(x, training=True), (3,)
    ),
    "stateful=False.*'gru'": lambda: functional(
        lambda x: L.GRU(2, stateful=True, name="gru")(x), batch_shape=(1, 3, 2)
    ),
    "is not built": lambda: keras.Sequential([L.Dense(2)]),
    "fixed shape but for the batch": lambda: functional(L.GlobalMaxPooling1D(), (None, 2)),
    "Pass `batch_size=3`": lambda: functional(L.Dense(2), batch_shape=(3, 2)),
    "dtype string": lambda: functional(L.Reshape((2, 1)), (2,), dtype="string"),
    "dtype bfloat16": lambda: functional(L.ReLU(), (2,), dtype="bfloat16"),
}
if BACKEND != "torch":
    REFUSED["Make it dense"] = lambda: functional(L.Dense(2), (2,), sparse=True)


class OfTheBook(L.Dropout):
    """What the book tells its readers to write."""

    def call(self, inputs):
        return super().call(inputs, training=True)


@pytest.mark.parametrize("kind", [kdx.MCDropout, OfTheBook, Noisy])
def test_a_way_out_is_named_where_it_leads_out(kind):
    layer = kind() if kind is Noisy else kind(0.5, seed=1)
    model = dense_model(L.Dense(200), layer)
    with pytest.raises(ValueError, match="draws random numbers") as caught:
        kdx.compile_for_inference(model)
    if "to_deterministic" in str(caught.value):
        fast = kdx.compile_for_inference(kdx.to_deterministic(model), engine="numpy")
        assert fast.engine == "numpy"
    else:
        assert kind is not kdx.MCDropout
        assert f"uild the model without {layer.name!r}" in str(caught.value)


@keras.saving.register_keras_serializable("test_inference")
class OwnThatDrops(keras.Model):
    """Makes its layers in code of its own, where `to_deterministic` can put no other."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.drop = kdx.MCDropout(0.5, seed=1, name="mc")

    def call(self, x):
        return self.drop(x)


def test_samples_are_a_way_out_where_no_other_model_can_be_made():
    model, x = OwnThatDrops(), np.ones((2, 3), "float32")
    model(x)
    with pytest.raises(ValueError, match=r"Call `mc_predict`, which draws .* build the model without 'mc'"):
        kdx.compile_for_inference(model)
    assert kdx.mc_predict(model, x, samples=8).std.max() > 0


LARGE_BATCHES = {
    "inputs": (lambda: dense_model(), 2**31),
    "beyond all integers": (lambda: dense_model(), 2**100),
    "a layer between": (
        lambda: functional(lambda x: L.GlobalMaxPooling1D()(L.RepeatVector(2**20)(x)), (1,)),
        2**14,
    ),
    "in a nested model": (
        lambda: functional(
            lambda x: keras.Sequential([L.RepeatVector(2**20), L.GlobalMaxPooling1D()])(x), (1,)
        ),
        2**14,
    ),
}


@pytest.mark.parametrize("case", LARGE_BATCHES)
def test_batches_that_no_memory_holds_are_refused_before_any_work(case, monkeypatch):
    build, rows = LARGE_BATCHES[case]
    model = build()
    monkeypatch.setattr(compilation, "Truth", None)  # no work
    with pytest.raises(
        ValueError, match=f"Batches of {rows} rows need .* smaller `batch_size`.*batch_size="
    ):
        kdx.compile_for_inference(model, batch_size=rows)


def test_batches_are_refused_by_the_memory_of_the_machine(monkeypatch):
    model = functional(L.ReLU(), (1000,))
    monkeypatch.setattr(memory, "memory_of_machine", lambda: 3 * 2 * 4 * 1000 * 10 + 4 * 1000 * 10)
    kdx.compile_for_inference(model, batch_size=10, engine="numpy")
    with pytest.raises(ValueError, match="Batches of 11 rows"):
        kdx.compile_for_inference(model, batch_size=11, engine="numpy")


@pytest.mark.parametrize("told", REFUSED)
def test_models_that_cannot_be_compiled_are_refused(told):
    with pytest.raises(ValueError, match=told):
        kdx.compile_for_inference(REFUSED[told]())


def test_a_model_that_was_built_of_a_fixed_batch_is_compiled_for_it():
    fast = kdx.compile_for_inference(functional(L.Dense(2), batch_shape=(3, 2)), batch_size=3)
    assert fast(np.ones((3, 2), "float32")).shape == (3, 2)


@pytest.mark.slow
def test_a_sequential_model_is_not_fixed_to_the_batch_that_it_was_built_by():
    model = keras.Sequential([L.Dense(4, "elu"), L.BatchNormalization(), L.Reshape((2, 2)), L.Dense(2)])
    model.compile("sgd", "mse")
    model.fit(np.ones((6, 3)), np.ones((6, 2, 2)), batch_size=6, verbose=0)
    x = np.arange(6, dtype="float32").reshape(2, 3)
    for rows in (1, 2):
        fast = kdx.compile_for_inference(model, batch_size=rows)
        assert_close(fast(x[:rows]), of_keras(model, x[:rows]))


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        ({"batch_size": 0}, ValueError, "batch_size=0"),
        ({"batch_size": True}, TypeError, "batch_size=True"),
        ({"batch_size": 1.0}, TypeError, "batch_size=1.0"),
        ({"engine": "fast"}, ValueError, "'numpy', 'graph'.*engine='fast'"),
        ({"engine": None}, TypeError, "engine=None"),
    ],
)
def test_wrong_arguments(arguments, error, told):
    with pytest.raises(error, match=told):
        kdx.compile_for_inference(dense_model(), **arguments)


def test_no_model():
    with pytest.raises(TypeError, match="Expected `model` to be a Keras model"):
        kdx.compile_for_inference(L.Dense(2))


def test_ill_conditioned_models_are_judged_by_what_one_rounding_makes_of_them(monkeypatch):
    """A hundred-thousandth is left of a product: an engine that does not round it gets another result."""
    model = keras.Sequential([keras.Input((1,)), L.Dense(1, use_bias=False), L.Dense(1)])
    x = equivalence.random_inputs([keras.KerasTensor((1, 1), "float32")], 1)[0].astype("float64")
    factor, bias = np.float32([[1.1234567]]), np.float32(x * 1.1234567 * (1e-5 - 1))[0]
    model.set_weights([factor, np.float32([[1.0]]), bias])

    def precise(model, signature):
        def run(arrays):
            product = arrays[0].astype("float64") * factor.astype("float64")
            return [(product + bias.astype("float64")).astype("float32")]

        return run

    with_engines(monkeypatch, precise=precise)
    assert kdx.compile_for_inference(model).engine == "precise"
    found = precise(None, None)([x.astype("float32")])[0]
    assert abs(found / of_keras(model, x.astype("float32")) - 1) > 1e-4  # 256 roundings are 1.5e-5
