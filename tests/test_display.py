"""What results and callbacks show of themselves: what matters, in a few lines, and no array whole."""

import copy
import pickle
import re

import keras
import numpy as np
import pytest

import keras_dnn_extras as kdx
from keras_dnn_extras._display import Displayed, Summary

L = keras.layers


def fitted(callback, **history):
    """Return `callback` as a fit leaves it that had these values in its updates."""
    callback.history = history
    return callback


def search(losses):
    return kdx.LearningRateSearch(np.geomspace(1e-4, 1, len(losses)), losses)


def falling(count=50):
    rates = np.geomspace(1e-4, 1, count)
    return search(1 / (1 + 100 * rates) + 9 * rates**4)


def prediction(**changes):
    fields = dict(mean=np.full((5, 2), 0.5), variance=np.full((5, 2), 0.04), num_samples=4)
    fields |= dict(expected_entropy=np.full(5, 0.5), variation_ratio=np.zeros(5))
    return kdx.MCPrediction(**fields | changes)


def monitor():
    watching = fitted(
        kdx.GradientNormMonitor(per_layer=False),
        gradient_norm=[1.0, 3.0, np.nan, 8.0],
        clipped_gradient_norm=[1.0, 2.0, np.nan, 2.0],
    )
    watching.findings = [kdx.GradientFinding("exploding", 7, 1, ("a", "b"), "Exploding gradients, truly.")]
    return watching


def report(**changes):
    fields = dict(fused=[kdx.Fusion("bn1", "conv", "backward")], kept=[kdx.Kept("bn2", "It is shared.")])
    return kdx.FusionReport(**fields | dict(removed=["drop"], max_relative_error=2.5e-7) | changes)


def model():
    return keras.Sequential([keras.Input((2,)), L.Dense(2, name="dense")], name="small")


CANDIDATES = kdx.Candidates({"graph": 2e-4, "numpy": 3e-5}, {"xla": "left out: not here"})
LATENCY = kdx.Latency(3e-5, 4.5e-5)

# What each shows, and what has to be told by it.
SHOWN = {
    "LearningRateSearch": (falling(), [f"{falling().suggestion:.2g}", "longest descent", "50 learning"]),
    "a failed search": (search(np.ones(50)), [r"suggestion\s+none", "the loss is flat"]),
    "MCPrediction": (prediction(), [r"samples\s+4\b", r"standard error\s+0\.1", r"entropy\s+0\.693"]),
    "several outputs": (
        prediction(
            mean={"a": np.ones((3, 1)), "b": [np.zeros((3, 2))]},
            variance={"a": np.ones((3, 1)), "b": [np.zeros((3, 2))]},
            expected_entropy={"a": None, "b": [None]},
            variation_ratio={"a": None, "b": [None]},
        ),
        [r"a \(3, 1\)", r"b/0 \(3, 2\)", r"standard error\s+0\.5"],
    ),
    "Entropies": (
        kdx.Entropies(np.array([1.0, 3.0]), np.array([0.5, 0.5]), np.array([0.5, 2.5])),
        [r"total\s+2\s+1\s+3", r"epistemic\s+1.5\s+0.5\s+2.5", "nats"],
    ),
    "RiskCoverage": (
        kdx.risk_coverage([0, 0, 1, 0], [0.1, 0.2, 0.9, 0.3]),
        [r"AURC\s+0\.0625", r"random AURC\s+0\.25", "0 at 50% coverage"],
    ),
    "Fusion": (report().fused[0], [r"^Fusion\(batch_norm='bn1', into='conv', direction='backward'\)$"]),
    "Kept": (report().kept[0], ["bn2", r"It is shared\."]),
    "FusionReport": (report(), ["1 of 2 batch normalizations", "2.5e-07", r"bn2\s+kept\. It is shared\."]),
    "FusionResult": (kdx.FusionResult(model(), report()), ["Sequential 'small' of 1 layer", "2.5e-07"]),
    "Latency": (LATENCY, ["30 us in the median", "45 us at the 99th"]),
    "Candidates": (CANDIDATES, [r"numpy\s+30 us\n\s+graph\s+200 us\n\s+xla\s+left out: not here"]),
    "CompiledModel": (
        kdx.CompiledModel("numpy", 1, LATENCY, CANDIDATES, report(), call=lambda x: x),
        [r"engine\s+numpy", "30 us in the median", r"fused\s+1 of 2 batch normalizations"],
    ),
    "KernelSparsity": (
        kdx.KernelSparsity("d/kernel", 3, 12),
        [r"path='d/kernel', zeros=3, size=12, share=0\.25\)$"],
    ),
    "Sparsity": (
        kdx.Sparsity((kdx.KernelSparsity("d/kernel", 3, 12), kdx.KernelSparsity("e/kernel", 0, 3)), 0.1),
        ["below 0.1", "3 of 15, 20.0%", r"d/kernel\s+3\s+12\s+25\.0%"],
    ),
    "Recipe": (kdx.recipe("sparse"), ["Recipe 'sparse'", r"regularization\s+l1 of 0.001"]),
    "GradientFinding": (
        monitor().findings[0],
        [r"update\s+7", r"layers\s+a, b", "gradients, truly"],
    ),
    "GradientNormMonitor": (
        monitor(),
        [
            r"\(per_layer=False\)",
            "4 updates",
            "4 on average, 8 at most",
            r"clipped\s+50%",
            r"exploding\s+7  a, b",
        ],
    ),
    "OneCycleScheduler": (
        fitted(kdx.OneCycleScheduler(0.1), learning_rate=[0.004, 0.1, 4e-7], momentum=[0.95, 0.85, 0.95]),
        [r"\(max_learning_rate=0\.1\)", "3 updates", "4e-07 to 0.1", "0.85 to 0.95"],
    ),
    "ExponentialLR": (
        fitted(kdx.ExponentialLR(0.5, verbose=1), learning_rate=[0.1, 0.05]),
        [r"\(factor=0\.5, verbose=1\)", "2 updates", "0.05 to 0.1"],
    ),
    "PowerLR": (kdx.PowerLR(decay_steps=9), [r"\(decay_steps=9\)$"]),
    "PiecewiseConstantLR": (
        fitted(kdx.PiecewiseConstantLR([1], [0.1, 0.1]), learning_rate=[0.1]),
        [r"\(boundaries=\[1\], values=\[0\.1, 0\.1\]\)", "1 update$", r"learning rate\s+0\.1$"],
    ),
    "GradualUnfreezing": (kdx.GradualUnfreezing({2: ["top"]}), [r"plan=\{2: \['top'\]\}"]),
    "OneCycle": (kdx.OneCycle(0.1, 100), ["0.004 in update 0, 0.1 in update 44, 4e-07 in update 99"]),
    "PowerDecay": (kdx.PowerDecay(0.1, 10), ["0.1 in update 0, 0.05 in update 10"]),
    "Warmup": (kdx.Warmup(kdx.OneCycle(0.1, 9), 5), [r"\(schedule=OneCycle\(.*\), warmup_steps=5\)$"]),
}


@pytest.mark.parametrize("name", SHOWN)
def test_it_shows_what_matters_in_a_few_lines(name):
    shown, expected = SHOWN[name]
    lines = repr(shown).splitlines()
    assert len(lines) <= 16
    assert max(map(len, lines)) <= 100
    for pattern in expected:
        assert re.search(pattern, repr(shown), re.MULTILINE), f"{pattern} is not in\n{shown!r}"
    html = shown._repr_html_()
    assert html.startswith("<div>")
    assert html.count("<tr>") == html.count("</tr>")


def test_every_result_callback_and_schedule_is_tried_here():
    shown = {type(instance).__name__ for instance, _ in SHOWN.values()}
    names = {n for n in kdx.__all__ if hasattr(getattr(kdx, n), "_repr_html_")}
    assert names == shown
    others = {"DenseTranspose"} | {n for n in kdx.__all__ if n.startswith("MC") and n != "MCPrediction"}
    assert {n for n in kdx.__all__ if isinstance(getattr(kdx, n), type)} == names | others  # Keras's layers


def test_no_array_is_printed_whole():
    many = falling(5000)
    assert len(repr(many)) < 600
    schedule = kdx.PiecewiseConstantLR(np.arange(1, 5000), [0.1] * 5000)
    assert len(repr(schedule)) < 200
    kept = [kdx.Kept(f"bn{i}", "It is shared.") for i in range(300)]
    text = repr(report(kept=kept))
    assert len(text.splitlines()) < 16
    assert "... and 292 more: print(report) shows all" in text
    assert len(str(report(kept=kept)).splitlines()) == 303


def test_a_name_that_is_longer_than_a_line_does_not_hide_the_reason():
    text = repr(report(kept=[kdx.Kept("n" * 150, "It is shared.")]))
    assert text.count("n") > 150
    assert "shared." in text


@pytest.mark.parametrize("place", ["title", "fact", "row", "header"])
def test_names_are_escaped_and_no_control_code_gets_through(place):
    strange = "<script>bn</script>\x1b[31m [bold]It[/bold]"
    parts = {"title": strange} if place == "title" else {"title": "Result"}
    parts |= {"facts": {strange: strange}} if place == "fact" else {}
    parts |= {"rows": [(strange, strange)]} if place == "row" else {}
    parts |= {"rows": [("1", "2")], "header": (strange, strange)} if place == "header" else {}

    class Result(Displayed):
        def _summary(self):
            return Summary(**parts)

    html, text = Result()._repr_html_(), repr(Result())
    assert "<script>" not in html
    assert "&lt;script&gt;bn" in html
    assert "\x1b" not in text
    assert "<script>bn</script>\\x1b[31m [bold]It[/bold]" in text  # the table takes nothing for markup


@pytest.mark.parametrize("setting", [{"COLUMNS": "20"}, {"FORCE_COLOR": "1"}, {"TERM": "dumb"}])
def test_it_does_not_depend_on_the_terminal(setting, monkeypatch):
    before = repr(falling()), repr(CANDIDATES)
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    assert (repr(falling()), repr(CANDIDATES)) == before


def test_results_are_equal_and_pickled_as_before():
    for one, other in ((report(), report()), (LATENCY, kdx.Latency(3e-5, 4.5e-5))):
        assert one == other
        assert pickle.loads(pickle.dumps(one)) == copy.deepcopy(one) == one
    assert report() != report(removed=[])
    assert hash(LATENCY) == hash((3e-5, 4.5e-5))
    curve = kdx.risk_coverage([0, 1], [0.1, 0.2])
    assert repr(pickle.loads(pickle.dumps(curve))) == repr(curve)


def test_a_subclass_that_does_not_keep_its_arguments_is_shown_too():
    class Own(kdx.OneCycleScheduler):
        def __init__(self, peak, **kwargs):
            super().__init__(peak, **kwargs)

    assert repr(Own(0.1)) == "Own(max_learning_rate=0.1)"  # which the base keeps


def test_a_subclass_that_hands_its_arguments_on_shows_those_too():
    class Own(kdx.OneCycleScheduler):
        def __init__(self, *args, tag="x", **kwargs):
            self.tag = tag
            super().__init__(*args, **kwargs)

    assert repr(Own(0.1, tag="y")) == "Own(max_learning_rate=0.1, tag='y')"
