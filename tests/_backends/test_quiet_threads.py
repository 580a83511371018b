"""quiet: what compilers and exporters tell is held back in one thread, and nothing in others."""

import logging
import sys
import threading
import warnings

import keras
import pytest

import keras_dnn_extras as kdx
from keras_dnn_extras._backends import precision
from keras_dnn_extras._backends.quiet_threads import quiet
from keras_dnn_extras.inference import measuring


def process_state():
    handlers = [*logging.root.handlers, logging.lastResort]
    filters = [list(handler.filters) for handler in handlers]
    return logging.root.manager.disable, sys.stdout, sys.stderr, [*warnings.filters], filters


def test_compiling_in_several_threads_leaves_the_messages_of_the_process_on(monkeypatch):
    monkeypatch.setattr(measuring, "WARM_UP", 0.0)
    monkeypatch.setattr(measuring, "MEASURED", 0.02)
    layers = [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)]
    model, before = keras.Sequential(layers), process_state()

    def work():
        kdx.compile_for_inference(model, engine="numpy")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert process_state() == before


def in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_only_the_thread_that_asked_is_quiet_and_threads_may_overlap(caplog):
    logger, before, first, second = logging.getLogger("test"), process_state(), quiet(), quiet()

    def speak(what):
        logger.warning(what)
        warnings.warn(what, UserWarning, stacklevel=2)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outside = process_state()
        first.__enter__()
        speak("held back")
        logger.error("an error")
        in_thread(lambda: speak("of another thread"))
        with quiet():
            pass
        speak("still held back")
        in_thread(lambda: second.__enter__())
        first.__exit__(None, None, None)  # before the second one, which began later
        speak("free")
        in_thread(lambda: second.__exit__(None, None, None))
        assert process_state() == outside
    assert [record.message for record in caplog.records] == ["an error", "of another thread", "free"]
    assert [str(each.message) for each in caught] == ["of another thread", "free"]
    assert process_state() == before


def test_a_filter_that_another_thread_has_copied_meanwhile_silences_nothing():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        silence, other = quiet(), warnings.catch_warnings()
        silence.__enter__()
        other.__enter__()  # takes a copy of the filters, with the one of `quiet` in it
        silence.__exit__(None, None, None)
        other.__exit__(None, None, None)
        warnings.warn("after all", UserWarning, stacklevel=1)
        with quiet():
            warnings.warn("nothing", UserWarning, stacklevel=1)
    assert [str(each.message) for each in caught] == ["after all"]


def settings_of_backend():
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.config.experimental.tensor_float_32_execution_enabled()
    import torch

    backends = (torch.backends.cudnn, torch.backends.cuda.matmul)
    return [each.allow_tf32 for each in backends], torch.get_rng_state().tolist()


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="its settings are those of a thread")
def test_threads_that_compare_models_leave_the_settings_of_the_backend():
    before, inside, leave = settings_of_backend(), threading.Event(), threading.Event()

    def work():
        with precision.no_trace():
            inside.set()
            leave.wait(5)

    thread = threading.Thread(target=work)
    with precision.no_trace():
        thread.start()
        inside.wait(0.2)  # and overlaps, if it may
    inside.wait(5)
    leave.set()
    thread.join()
    assert settings_of_backend() == before
