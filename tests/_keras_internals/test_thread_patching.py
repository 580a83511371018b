"""Methods replaced in one thread: other threads go on with the original, and it is put back."""

import threading

import pytest

from keras_dnn_extras._keras_internals import replaced_in_thread


class Counter:
    def count(self):
        return "original"


def test_a_method_is_replaced_in_one_thread_alone():
    counter, seen = Counter(), []

    def look():
        seen.append(counter.count())

    with replaced_in_thread(counter, "count", lambda original: lambda: f"not {original()}"):
        assert counter.count() == "not original"
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert seen == ["original"]
    assert counter.count() == "original"
    assert vars(counter) == {}


def test_threads_that_overlap_leave_the_original():
    counter, entered, left = Counter(), threading.Event(), threading.Event()
    seen = []

    def overlap():
        with replaced_in_thread(counter, "count", lambda _: lambda: "second"):
            entered.set()
            left.wait(10)
            seen.append(counter.count())

    with replaced_in_thread(counter, "count", lambda _: lambda: "first"):
        thread = threading.Thread(target=overlap)
        thread.start()
        entered.wait(10)
        assert counter.count() == "first"
    assert "count" in vars(counter)  # the other one still needs it
    assert counter.count() == "original"
    left.set()
    thread.join()
    assert seen == ["second"]
    assert vars(counter) == {}


def test_a_method_of_the_object_itself_is_put_back():
    counter = Counter()
    counter.count = own = lambda: "own"
    with replaced_in_thread(counter, "count", lambda original: lambda: original() + "!"):
        assert counter.count() == "own!"
    assert counter.count is own


def test_a_method_is_put_back_after_an_error():
    counter = Counter()

    def fail(original):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), replaced_in_thread(counter, "count", fail):
        pass
    assert vars(counter) == {}


def test_replacements_are_nested():
    counter = Counter()
    with replaced_in_thread(counter, "count", lambda _: lambda: "outer"):
        with replaced_in_thread(counter, "count", lambda _: lambda: "inner"):
            assert counter.count() == "inner"
        assert counter.count() == "outer"
