"""What Monte-Carlo dropout knows that one prediction does not, and what it does not know either.

    KERAS_BACKEND=tensorflow python examples/uncertainty.py    # or jax, or torch

1. Digits, of which one class is held out of training: how well does an uncertainty tell its images from
   the others (area under the ROC curve)? The entropy of one prediction, against that of the mean of 100
   samples, and their mutual information. A few seeds and held out classes, as one says little.
2. Digits the network was trained for: which share of them can it classify alone, if it hands over those
   that it is not sure of? And are its probabilities right (calibration error, negative log-likelihood)?
3. Regression: diabetes progression by body mass index, with the band of the samples. It is the uncertainty
   of the curve, not of a patient: most points lie outside.

Pictures are in `uncertainty.png`.
"""

import argparse
import sys

import keras
import numpy as np

try:
    from matplotlib.figure import Figure
    from sklearn.datasets import load_diabetes, load_digits
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import train_test_split
except ImportError as error:
    sys.exit(f"{error}. This example needs two more packages: pip install matplotlib scikit-learn")

import keras_dnn_extras as kdx


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--picture", default="uncertainty.png")
    arguments = parser.parse_args()
    figure = Figure(figsize=(13, 9), layout="constrained")
    axes = figure.subplots(2, 2)
    unknown_digits(arguments.seeds)
    known_digits(arguments.seeds, axes)
    regression(axes[1, 1])
    figure.savefig(arguments.picture)
    print(f"See {arguments.picture}.")


def digits():
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype("float32"), y


def classifier(classes, seed):
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((64,))]
    for _ in range(2):
        hidden = keras.layers.Dense(100, activation="relu", kernel_initializer="he_normal")
        layers += [hidden, keras.layers.Dropout(0.5)]
    model = keras.Sequential([*layers, keras.layers.Dense(classes, activation="softmax")])
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    return model


def unknown_digits(seeds):
    x, y = digits()
    scores = {"entropy of one prediction": [], "entropy of the mean": [], "mutual information": []}
    for seed in range(seeds):
        held_out = (3 * seed + 2) % 10
        known = y != held_out
        train, test, y_train, _ = train_test_split(x[known], y[known], test_size=0.3, random_state=seed)
        model = classifier(10, seed)
        model.fit(train, y_train, epochs=30, verbose=0)
        shown = np.concatenate([test, x[~known]])
        is_unknown = np.arange(len(shown)) >= len(test)
        prediction = kdx.mc_predict(model, shown, seed=seed)
        found = (
            kdx.entropy_decomposition(model.predict(shown, verbose=0)[None]).total,
            prediction.predictive_entropy,
            prediction.mutual_information,
        )
        for name, uncertainty in zip(scores, found, strict=True):
            scores[name].append(roc_auc_score(is_unknown, uncertainty))
    print(f"1. Telling a digit that was never seen, area under the ROC curve, {seeds} seeds and digits:")
    for name, values in scores.items():
        each = ", ".join(f"{value:.3f}" for value in values)
        print(f"   {name:<26} {np.mean(values):.3f}   ({each})")


def known_digits(seeds, axes):
    x, y = digits()
    rows = {"one prediction": [], "mean of 100 samples": []}
    for seed in range(seeds):
        train, test, y_train, y_test = train_test_split(x, y, test_size=0.5, random_state=seed)
        model = classifier(10, seed)
        model.fit(train, y_train, epochs=30, verbose=0)
        prediction = kdx.mc_predict(model, test, seed=seed)
        for name, probabilities in zip(
            rows, (model.predict(test, verbose=0), prediction.mean), strict=True
        ):
            wrong = probabilities.argmax(axis=1) != y_test
            entropy = kdx.entropy_decomposition(probabilities[None]).total
            curve = kdx.risk_coverage(wrong, entropy)
            rows[name].append(
                (
                    wrong.mean(),
                    curve.risk[int(0.9 * len(curve.risk))],
                    curve.aurc,
                    kdx.expected_calibration_error(y_test, probabilities),
                    kdx.negative_log_likelihood(y_test, probabilities),
                )
            )
    print(f"\n2. Digits of all classes, half of them for training, means of {seeds} seeds:")
    print(f"   {'':<20} {'error':>7} {'of the surest 90%':>18} {'AURC':>8} {'calibration':>12} {'NLL':>7}")
    for name, values in rows.items():
        error, surest, aurc, calibration, nll = np.mean(values, axis=0)
        print(f"   {name:<20} {error:7.2%} {surest:18.2%} {aurc:8.5f} {calibration:12.4f} {nll:7.4f}")
    wrong = prediction.mean.argmax(axis=1) != y_test
    kdx.plot_uncertainty(~wrong, prediction.predictive_entropy, ax=axes[0, 0])
    kdx.risk_coverage(wrong, prediction.predictive_entropy).plot(ax=axes[0, 1])
    kdx.plot_reliability(y_test, prediction.mean, ax=axes[1, 0])


def regression(ax):
    x, y = load_diabetes(return_X_y=True)
    x, y = x[:, 2:3] / x[:, 2].std(), (y - y.mean()) / y.std()
    order = np.argsort(x[:, 0])
    x, y = x[order].astype("float32"), y[order]
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(64, activation="relu"), keras.layers.Dropout(0.1)]
    hidden += [keras.layers.Dense(64, activation="relu"), keras.layers.Dropout(0.1)]
    model = keras.Sequential([keras.Input((1,)), *hidden, keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    model.fit(x, y, epochs=100, verbose=0)
    wide = np.linspace(-6, 8, 200, dtype="float32")[:, None]
    prediction = kdx.mc_predict(model, wide, 200, seed=0)
    kdx.plot_band(wide, prediction.mean, prediction.std, data=(x, y), ax=ax)
    ax.set(xlabel="body mass index, in standard deviations", ylabel="diabetes progression")
    here = kdx.mc_predict(model, x, 200, seed=0)
    inside = np.abs(y - here.mean[:, 0]) < 2 * here.std[:, 0]
    far = np.abs(wide[:, 0]) > 4
    print(
        f"\n3. Diabetes by body mass index: {inside.mean():.0%} of the patients lie within two standard "
        f"deviations of the samples,\n   which are {here.std.mean():.2f} on average among the patients and "
        f"{prediction.std[far].mean():.2f} far from all of them."
    )


if __name__ == "__main__":
    main()
