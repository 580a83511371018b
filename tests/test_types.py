"""What a type checker says of a user's script: nothing, and of each mistake in it, where it is."""

import pathlib
import re
import subprocess
import sys

import keras
import pytest

import keras_dnn_extras as kdx

ROOT = pathlib.Path(kdx.__file__).parents[1]
SCRIPT = pathlib.Path(__file__).with_name("typed_script.py")

# By what each is: a piece of the script, and the mistake in its place.
MISTAKES = {
    "a typo in a choice": ('anneal="cosine"', 'anneal="cosin"'),
    "another unit": ('unit="epoch"', 'unit="epochs"'),
    "another reaction": ('on_problem="ignore"', 'on_problem="ignored"'),
    "another frequency": ('update_freq="batch"', 'update_freq="batches"'),
    "neither a bool nor auto": ('cycle_momentum="auto"', 'cycle_momentum="yes"'),
    "another recipe": ('recipe="risk_sensitive"', 'recipe="risk-sensitive"'),
    "a recipe by another name": ('kdx.recipe("low_latency")', 'kdx.recipe("lowlatency")'),
    "other masks": ('masks="independent"', 'masks="independant"'),
    "another engine": ('engine="numpy"', 'engine="grph"'),
    "an argument of another name": ("steps=100, ver", "num_steps=100, ver"),
    "a string for a number": ("OneCycle(0.1,", 'OneCycle("0.1",'),
    "a float for a number of updates": ("total_steps=100", "total_steps=1e2"),
    "a number for a list": ("[30, 30]", "30"),
    "a suggestion that may be None": ("OneCycleScheduler(search,", "OneCycleScheduler(search.suggestion,"),
    "a number that may be None": ("search.suggestion:.2g", "search.suggestions['steep'] * 2"),
    "an attribute of a search": ("search.reason", "search.reasons"),
    "an attribute of a prediction": ("prediction.std.", "prediction.stddev."),
    "an attribute of an array": ("search.losses.min()", "search.losses.minimum()"),
    "an attribute of a finding": ("finding.kind", "finding.name"),
    "an attribute of a report": ("report.max_relative_error", "report.max_error"),
    "an argument by its place": ("mc_predict(model, x, samples=50,", "mc_predict(model, x, 50, 32,"),
    "an argument that is missing": ("new, x, y, epochs=2,", "new, x, y,"),
    "no data": ("find_learning_rate(model, x, y,", "find_learning_rate(model, None, y,"),
    "a key of another type": ('{1: "hidden_1"}', '{"1": "hidden_1"}'),
    "a name that does not exist": ("kdx.brier_score", "kdx.briar_score"),
}


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """Return the lines with errors, by the mistake that was planted, `None` for the script itself."""
    pytest.importorskip("mypy")
    if keras.backend.backend() != "torch":
        pytest.skip("mypy sees no backend, and takes half a minute")
    folder = tmp_path_factory.mktemp("scripts")
    planted = {"script": None} | {f"mistake_{i}": mistake for i, mistake in enumerate(MISTAKES)}
    for name, mistake in planted.items():
        text = SCRIPT.read_text()
        if mistake is not None:
            text = text.replace(*MISTAKES[mistake])
        (folder / f"{name}.py").write_text(text)
    # The configuration of this project leaves Keras out, as that of a user has to, and shares its cache.
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--no-error-summary"]
    done = subprocess.run([*command, *folder.iterdir()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = {mistake: [] for mistake in planted.values()}
    for name, line in re.findall(r"(\w+)\.py:(\d+): error:", done.stdout):
        found[planted[name]].append(int(line))
    return found


def test_a_script_has_no_error(errors):
    assert errors[None] == []


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found_where_it_is(errors, mistake):
    right, wrong = MISTAKES[mistake]
    lines = SCRIPT.read_text().split("\n")
    places = [i for i, line in enumerate(lines, start=1) if right in line]
    assert len(places) == 1
    assert right != wrong
    assert set(errors[mistake]) == set(places)
