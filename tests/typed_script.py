"""A script as a user writes it, for type checkers: `test_types.py` plants mistakes in it."""

import keras
import numpy as np

import keras_dnn_extras as kdx


def load() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 8)).astype("float32")
    return x, (x.sum(axis=1) > 0).astype("int64")


def train(x: np.ndarray, y: np.ndarray) -> keras.Model:
    model = kdx.dnn(8, [30, 30], outputs=2, recipe="risk_sensitive", inputs=x, metrics=["accuracy"], seed=0)
    search = kdx.find_learning_rate(model, x, y, batch_size=64, steps=100, verbose=0)
    print(search.reason, search.losses.min(), search.smoothed_losses[:3].tolist())
    if search.suggestion is not None:
        print(f"{search.suggestion:.2g}, {search.suggestions['steep']}")
    search.plot().set_title("range test")
    one_cycle = kdx.OneCycleScheduler(search, anneal="cosine", cycle_momentum="auto", update_freq="batch")
    monitor = kdx.GradientNormMonitor("epoch", on_problem="ignore", exploding_threshold=1e4)
    model.fit(x, y, epochs=3, callbacks=[one_cycle, monitor])
    for finding in monitor.findings:
        print(finding.kind, finding.update, ", ".join(finding.layers))
    print(max(one_cycle.history["learning_rate"]), sum(monitor.history["gradient_norm"]))
    return model


def other_schedules() -> list[keras.callbacks.Callback]:
    schedule = kdx.Warmup(kdx.OneCycle(0.1, total_steps=100, three_phase=False), warmup_steps=10)
    print(float(schedule(3)), schedule.get_config())
    steps = kdx.PiecewiseConstantLR([2, 4.5], [0.1, 0.01, 0.001], unit="epoch")
    return [steps, kdx.ExponentialLR(decay_rate=0.1, decay_epochs=2), kdx.PowerLR(decay_steps=20)]


def uncertainty(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    prediction = kdx.mc_predict(model, x, samples=50, masks="independent", keep_samples=True, seed=1)
    labels = prediction.mean.argmax(axis=-1)
    low, high = prediction.quantile([0.05, 0.95])
    print(prediction.std.mean(), prediction.mutual_information.max(), (high - low).mean())
    kdx.plot_uncertainty(labels == y, prediction.predictive_entropy, bins=20).grid(True)
    kdx.plot_reliability(y, prediction.mean)
    curve = kdx.risk_coverage(labels != y, prediction.predictive_entropy)
    print(curve.aurc, curve.coverage[-1], kdx.brier_score(y, prediction.mean))
    return kdx.expected_calibration_error(y, prediction.mean, bins=10)


def transfer_and_deploy(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    new = kdx.replace_head(model, keras.layers.Dense(3, activation="softmax"))
    new.compile("adam", "sparse_categorical_crossentropy")
    history = kdx.fine_tune(new, x, y, epochs=2, layer_decay=0.9, verbose=0)
    kdx.unfreeze(kdx.freeze(new, ["hidden_1", 0]), slice(-1, None), learning_rate=1e-4)
    unfreezing = kdx.GradualUnfreezing({1: "hidden_1"})
    new.fit(x, y, epochs=2, callbacks=[unfreezing])
    fused = kdx.fuse_batch_norm(kdx.to_deterministic(model), inputs=x[:8])
    print([fold.into for fold in fused.report.fused], fused.report.max_relative_error)
    fast = kdx.compile_for_inference(fused.model, engine="numpy", batch_size=None)
    print(fast(x[:1]).shape, fast.latency.p50 * 1e3, kdx.sparsity(new).share, history.epoch)
    return float(fast.latency.p99)


def main() -> None:
    keras.utils.set_random_seed(0)
    x, y = load()
    model = train(x, y)
    model.summary()
    print(other_schedules(), uncertainty(model, x, y), transfer_and_deploy(model, x, y))
    print(kdx.recipe("low_latency").activation)


if __name__ == "__main__":
    main()
