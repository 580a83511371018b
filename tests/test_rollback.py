"""The one rollback: what was changed is put back, at the end or after an error alone."""

import pytest

from keras_dnn_extras._rollback import rolled_back, together


def item(values, key):
    value = values[key]
    return lambda: values.update({key: value})


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("only_on_error", [False, True])
def test_what_is_named_is_put_back_and_nothing_else(error, only_on_error):
    values = {"a": 1, "b": 1, "c": 1}

    def change():
        with rolled_back(item(values, "a"), item(values, "b"), only_on_error=only_on_error):
            values.update(a=2, b=2, c=2)
            if error is not None:
                raise error

    if error is None:
        change()
    else:
        with pytest.raises(error):
            change()
    assert values == (
        {"a": 2, "b": 2, "c": 2} if only_on_error and error is None else {"a": 1, "b": 1, "c": 2}
    )


def test_the_last_one_is_put_back_first():
    order = []
    with rolled_back(lambda: order.append(1), together(lambda: order.append(2), lambda: order.append(3))):
        pass
    assert order == [3, 2, 1]


@pytest.mark.parametrize("join", [lambda *snapshots: snapshots, lambda *snapshots: [together(*snapshots)]])
def test_one_that_fails_keeps_no_other_from_being_put_back(join):
    values = {"a": 1}

    def fails():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), rolled_back(*join(item(values, "a"), fails)):
        values.update(a=2)
    assert values == {"a": 1}
