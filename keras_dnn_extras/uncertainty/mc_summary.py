"""What there is to say about a Monte-Carlo prediction, output by output."""

from typing import Any

import numpy as np
from keras import tree

from keras_dnn_extras._display import Summary, mean_and_range


def summary_of(prediction: Any) -> Summary:
    """Return the summary of an `MCPrediction`: how many samples, and each output in numbers."""
    of_outputs = {
        "mean": prediction.mean,
        "standard error": prediction.standard_error,
        "entropy": prediction.predictive_entropy,
        "epistemic part": prediction.mutual_information,
    }
    names = [_name(path, mean) for path, mean in tree.flatten_with_path(prediction.mean)]
    by_output = zip(names, *map(tree.flatten, of_outputs.values()), strict=True)
    rows = [row for name, *arrays in by_output for row in _rows(name, list(of_outputs), arrays)]
    samples = f"{prediction.num_samples:,}{'' if prediction.samples is None else ', kept'}"
    return Summary("MCPrediction", {"samples": samples}, rows, ("output", "", "mean", "least", "most"))


def _name(path: tuple, mean: np.ndarray) -> str:
    return f"{'/'.join(map(str, path)) or 'output'} {mean.shape}"


def _rows(name: str, labels: list[str], arrays: list[np.ndarray | None]) -> list[tuple[str, ...]]:
    """Return the rows for one output: its name in the first of them, then each array that is there."""
    of_arrays = zip(labels, arrays, strict=True)
    of_output = [(label, *mean_and_range(array)) for label, array in of_arrays if array is not None]
    return [("" if i else name, *row) for i, row in enumerate(of_output)]
