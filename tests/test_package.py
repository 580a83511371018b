"""The rules of the package that no linter sees, the catalogue of public names, examples in docstrings."""

import ast
import dataclasses
import doctest
import importlib
import inspect
import pathlib
import re
import subprocess
import sys

import keras
import pytest

import keras_dnn_extras as kdx

PACKAGE = pathlib.Path(kdx.__file__).parent
README = PACKAGE.parent / "README.md"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")
}

EXAMPLES = {
    "DenseTranspose": dict(dense=keras.layers.Dense(3, name="tied"), activation="tanh", use_bias=False)
    | dict(name="back", dtype="mixed_bfloat16", trainable=False),
    "GradientNormMonitor": dict(update_freq=3, per_layer=False, update_ratios=True)
    | dict(vanishing_threshold=1e-9, exploding_threshold=1e4, on_problem="raise", verbose=1),
    "GradualUnfreezing": dict(plan={2: ["body/top", 0], 5: None}, batch_norm=True, verbose=1),
    "ExponentialLR": dict(decay_rate=0.5, decay_epochs=1.5, initial_learning_rate=0.1)
    | dict(staircase=True, verbose=1, update_freq=2),
    "LearningRateSearch": dict(
        learning_rates=[0.1, 0.2], losses=[1.0, 0.5], divergence_factor=3.0, steps=9
    ),
    "PiecewiseConstantLR": dict(boundaries=[1, 2.5], values=[0.1, 0.2, 0.05], unit="epoch", verbose=1)
    | dict(update_freq="batch"),
    "PowerDecay": dict(initial_learning_rate=0.1, decay_steps=3, power=2.0, name="power"),
    "PowerLR": dict(decay_epochs=1.5, power=2.0, initial_learning_rate=0.1, verbose=1)
    | dict(update_freq=3),
    "Warmup": dict(schedule=0.1, warmup_steps=3, start=0.01, name="warm"),
    "OneCycle": dict(max_learning_rate=0.3, total_steps=7, warmup_fraction=0.2, three_phase=False)
    | dict(anneal="cosine", div_factor=5.0, final_div_factor=50.0, name="cycle"),
    "OneCycleScheduler": dict(max_learning_rate=0.3, total_steps=7, warmup_fraction=0.2)
    | dict(three_phase=False, anneal="cosine", div_factor=5.0, final_div_factor=50.0)
    | dict(cycle_momentum=True, base_momentum=0.5, max_momentum=0.8, verbose=1)
    | dict(update_freq="batch"),
    "MCDropout": dict(rate=0.3, noise_shape=(None, 1), seed=1, name="mc", dtype="mixed_bfloat16"),
    "MCAlphaDropout": dict(rate=0.3, noise_shape=(None, 1), seed=1, name="mc", trainable=False),
    "MCGaussianDropout": dict(rate=0.3, seed=1, name="mc", dtype="mixed_bfloat16"),
    "MCSpatialDropout1D": dict(rate=0.3, seed=1, name="mc", dtype="mixed_bfloat16", trainable=False),
    "MCSpatialDropout2D": dict(rate=0.3, seed=1, data_format="channels_first", trainable=False),
    "MCSpatialDropout3D": dict(rate=0.3, seed=1, data_format="channels_first", dtype="mixed_bfloat16"),
}

# What cannot be left out.
NEEDED = {
    "DenseTranspose": {"dense": keras.layers.Dense(3)},
    "ExponentialLR": {"factor": 0.9},
    "GradientNormMonitor": {},
    "GradualUnfreezing": {"plan": {2: None}},
    "LearningRateSearch": {"learning_rates": [0.1, 0.2], "losses": [1.0, float("inf")]},
    "OneCycle": {"max_learning_rate": 0.1, "total_steps": 5},
    "OneCycleScheduler": {"max_learning_rate": 0.1},
    "PiecewiseConstantLR": {"boundaries": (1,), "values": (0.1, 0.01)},
    "PowerDecay": {"initial_learning_rate": 0.1, "decay_steps": 3},
    "PowerLR": {"decay_steps": 3},
    "Warmup": {"schedule": 0.1, "warmup_steps": 3},
}

# What functions return, and nobody makes or saves.
RESULTS = [
    "Candidates",
    "CompiledModel",
    "Entropies",
    "Fusion",
    "FusionReport",
    "FusionResult",
    "GradientFinding",
    "Kept",
    "KernelSparsity",
    "Latency",
    "MCPrediction",
    "Recipe",
    "RiskCoverage",
    "Sparsity",
]
CLASSES = [n for n in kdx.__all__ if inspect.isclass(getattr(kdx, n)) and n not in RESULTS]


def imported_by(nodes):
    """Return the modules that the statements among `nodes` import from, as dotted names."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return names


def test_no_backend_is_imported_at_module_top():
    heavy = {"tensorflow", "jax", "torch", "matplotlib"}
    for module, path in MODULES.items():
        roots = {name.split(".")[0] for name in imported_by(ast.parse(path.read_text()).body)}
        assert not roots & heavy, module


def test_a_folder_is_entered_by_its_face():
    for module, path in MODULES.items():
        for name in imported_by(ast.walk(ast.parse(path.read_text()))):
            package, *inner = name.split(".")
            if package == "keras_dnn_extras" and len(inner) > 1:
                assert module.split(".")[1:2] == inner[:1], module


def test_importing_the_package_imports_no_other_backend_and_no_plotting():
    script = "import keras, sys; before = set(sys.modules); import keras_dnn_extras; "
    script += "print(*(set(sys.modules) - before))"
    command = [sys.executable, "-c", script]
    imported = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert "keras_dnn_extras.fusion" in imported
    assert imported & {"tensorflow", "jax", "torch", "matplotlib"} == set()


def test_the_example_of_each_public_name_is_here():
    assert set(EXAMPLES) == set(CLASSES)
    assert sorted(kdx.__all__) == kdx.__all__


def test_dir_shows_the_public_names_and_none_is_a_module():
    assert dir(kdx) == sorted(["__version__", *kdx.__all__])
    assert not any(inspect.ismodule(getattr(kdx, name)) for name in dir(kdx))


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_is_registered_under_the_package_name(name):
    assert keras.saving.get_registered_name(getattr(kdx, name)) == f"keras_dnn_extras>{name}"


@pytest.mark.parametrize("name", CLASSES)
def test_every_config_makes_an_equal_object(name):
    made = getattr(kdx, name)(**EXAMPLES[name])
    config = made.get_config()
    for argument, value in EXAMPLES[name].items():
        stored = config[argument]
        if argument == "dtype":
            stored = stored["config"]["name"]
        if isinstance(value, keras.layers.Layer):
            value = keras.saving.serialize_keras_object(value)
        assert stored == value
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(made))
    assert type(again) is type(made)
    assert again.get_config() == config
    by_default = getattr(kdx, name)(**NEEDED.get(name, {"rate": 0.2}))
    assert type(by_default).from_config(by_default.get_config()).get_config() == by_default.get_config()


@pytest.mark.parametrize("name", RESULTS)
def test_the_docstring_of_a_result_tells_what_is_in_it(name):
    kind = getattr(kdx, name)
    attributes = kind.__doc__.split("Attributes:\n")[1]
    told = re.findall(r"^ {8}(\S[\w, ]*):", attributes, re.MULTILINE)
    told = [attribute.strip() for group in told for attribute in group.split(",")]
    assert told == [field.name for field in dataclasses.fields(kind)]
    assert f"`{name}`" in README.read_text()


@pytest.mark.parametrize("name", [n for n in kdx.__all__ if n not in RESULTS])
def test_the_docstring_tells_every_argument_and_the_readme_the_name(name):
    kind = getattr(kdx, name)
    arguments = re.search(r"Args:\n(.*?)\n\n", kind.__doc__, re.DOTALL).group(1)
    told = re.findall(r"^ {8}(\S[\w*, ]*):", arguments, re.MULTILINE)
    told = [argument.strip() for group in told for argument in group.split(",")]
    parameters = inspect.signature(kind).parameters.values()
    stars = {inspect.Parameter.VAR_KEYWORD: "**", inspect.Parameter.VAR_POSITIONAL: "*"}
    assert told == [stars.get(p.kind, "") + p.name for p in parameters]
    for section in ("Raises:", "Example:", "Reference:"):
        assert section in kind.__doc__
    assert f"`{name}`" in README.read_text()


@pytest.mark.parametrize("module", [m for m in MODULES if ">>>" in MODULES[m].read_text()])
def test_the_examples_in_docstrings_run(module):
    failed, _ = doctest.testmod(importlib.import_module(module))
    assert failed == 0
