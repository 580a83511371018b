"""Full precision: a setting of the process is off while anybody wants it so, and comes back as it was."""

import threading

import pytest

from keras_dnn_extras._backends.precision import _SwitchedOff


@pytest.mark.parametrize("before", [True, False])
def test_threads_that_overlap_put_a_setting_back_as_it_was(before):
    state, entered, left = [before], threading.Event(), threading.Event()
    switched_off = _SwitchedOff(lambda: state[0], lambda value: state.__setitem__(0, value))

    def overlap():
        with switched_off():
            entered.set()
            left.wait(10)

    with switched_off():
        thread = threading.Thread(target=overlap)
        thread.start()
        assert entered.wait(10)  # while this one is inside, too
    assert state == [False]
    left.set()
    thread.join()
    assert state == [before]
