"""Graphs: what they say of producers and consumers, their parts, and what they compute."""

import gc
import weakref

import keras
import numpy as np
import pytest

from keras_dnn_extras._graphs import EditedGraph, Graph, ObstacleError, Usage
from keras_dnn_extras._keras_internals import standardized_inputs

L = keras.layers
X = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")


def diamond():
    """Return a model of two ways that meet, with a nested model on one of them and two outputs."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    inner = [L.Dense(5, name="inner"), L.Dropout(0.5, name="drop")]
    body = keras.Sequential([keras.Input((6,)), *inner], name="body")
    first, second = body(inputs), L.Dense(5, name="second")(inputs)
    both = L.Add(name="add")([first, second])
    outputs = {"head": L.Dense(2, name="head")(both), "second": second}
    return keras.Model(inputs, outputs)


def names(calls):
    return [call.operation.name for call in calls]


def by_name(graph):
    return {call.operation.name: call for call in graph.calls}


def test_nested_models_are_inlined_or_kept():
    model = diamond()
    assert sorted(names(Graph.of(model).calls)) == ["add", "drop", "head", "inner", "second"]
    assert sorted(names(Graph.of(model, nested="keep").calls)) == ["add", "body", "head", "second"]


def test_calls_come_after_those_that_make_their_inputs():
    graph = Graph.of(diamond())
    seen = set(graph.inputs)
    for call in graph.calls:
        assert seen.issuperset(call.inputs)
        seen.update(call.outputs)
    assert seen.issuperset(graph.output_values)


def test_each_value_has_its_tensor_where_nested_models_are_kept():
    model = diamond()
    graph = Graph.of(model, nested="keep")
    assert [graph.tensors[value] for value in graph.inputs] == model.inputs
    assert all(graph.tensors[graph.outputs[name]] is model.output[name] for name in model.output)


def test_a_model_that_computes_in_code_of_its_own_has_no_graph():
    class Own(keras.Model):
        def call(self, x):
            return x

    assert Graph.of(Own()) is None


def test_a_value_has_one_producer_and_its_consumers():
    graph = Graph.of(diamond())
    calls = by_name(graph)
    assert graph.producer(graph.inputs[0]) is None
    assert graph.producer(calls["add"].outputs[0]) is calls["add"]
    assert sorted(names(graph.consumers(graph.inputs[0]))) == ["inner", "second"]
    assert graph.consumers(calls["head"].outputs[0]) == []


def test_a_consumer_that_takes_a_value_twice_is_there_once():
    inputs = keras.Input((6,))
    graph = Graph.of(keras.Model(inputs, L.Add(name="add")([inputs, inputs])))
    assert names(graph.consumers(graph.inputs[0])) == ["add"]
    assert len(graph.calls[0].inputs) == 2


def test_ancestors_are_what_a_value_is_computed_from():
    graph = Graph.of(diamond())
    calls = by_name(graph)
    assert names(graph.ancestors(calls["drop"].outputs)) == ["inner", "drop"]
    assert sorted(names(graph.ancestors(calls["add"].outputs))) == ["add", "drop", "inner", "second"]
    assert graph.ancestors(graph.inputs) == []


def test_ancestors_are_in_the_order_of_the_calls():
    inputs = outputs = keras.Input((6,))
    for _ in range(8):
        outputs = L.Add()([outputs, L.Dense(6)(inputs)])
    graph = Graph.of(keras.Model(inputs, outputs))
    assert graph.ancestors(graph.output_values) == graph.calls


def test_ancestors_end_where_they_are_told_but_not_at_the_values_themselves():
    graph = Graph.of(diamond())
    calls = by_name(graph)
    dropped, added = calls["drop"].outputs[0], calls["add"].outputs[0]
    ended = graph.ancestors([added], until=lambda value: value in (dropped, added))
    assert sorted(names(ended)) == ["add", "second"]


def test_descendants_are_what_a_value_has_an_effect_on():
    graph = Graph.of(diamond())
    calls = by_name(graph)
    assert names(graph.descendants(calls["inner"].outputs)) == ["drop", "add", "head"]
    assert graph.descendants(calls["head"].outputs) == []
    assert set(graph.descendants(graph.inputs)) == set(graph.calls)


def test_a_part_takes_what_it_ends_at():
    graph = Graph.of(diamond())
    calls = by_name(graph)
    dropped = calls["drop"].outputs[0]
    part = graph.part(calls["add"].outputs[0], until=lambda value: value is dropped)
    assert set(part.inputs) == {dropped, graph.inputs[0]}
    assert sorted(names(part.calls)) == ["add", "second"]
    assert part.consumers(calls["add"].outputs[0]) == []


def test_a_split_graph_computes_the_same_in_two_parts():
    model = diamond()
    graph = Graph.of(model)
    first, second = graph.split(lambda operation: operation.name == "drop")
    assert sorted(names(first.calls)) == ["inner", "second"]
    assert sorted(names(second.calls)) == ["add", "drop", "head"]
    outputs = second.run(first.run(standardized_inputs(model, X)))
    for name, expected in model(X, training=False).items():
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (outputs[name], expected)))


def test_a_late_operation_without_outputs_that_are_used_is_in_the_second_part():
    graph = Graph.of(diamond())
    _, second = graph.split(lambda operation: operation.name == "head")
    assert names(second.calls) == ["head"]


def test_a_graph_computes_what_its_model_does():
    model = diamond()
    outputs = Graph.of(model).run(standardized_inputs(model, X))
    for name, expected in model(X, training=False).items():
        np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, (outputs[name], expected)), rtol=1e-6)


def test_a_graph_does_not_keep_its_model():
    model = keras.Sequential([keras.Input((6,)), L.Dense(2)])
    graph, gone = Graph.of(model), weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert graph.run([keras.ops.convert_to_tensor(X)]).shape == (4, 2)


def chain():
    inputs = keras.Input((6,))
    x = L.Dense(5, name="dense")(inputs)
    x = L.Dropout(0.5, name="drop")(x)
    x = L.Dropout(0.5, name="drop_again")(x)
    return keras.Model(inputs, L.Dense(2, name="head")(x))


@pytest.mark.parametrize("order", [("drop", "drop_again"), ("drop_again", "drop")])
def test_an_erased_call_hands_its_consumers_on_to_what_it_took(order):
    model = chain()
    graph = Graph.of(model, nested="keep")
    edited, calls = EditedGraph(model, graph), by_name(graph)
    for name in order:
        edited.erase(calls[name])
    dense, last = calls["dense"].outputs[0], calls["drop_again"].outputs[0]
    assert names(edited.calls) == ["dense", "head"]
    assert edited.resolved(last) is dense
    assert edited.aliases(dense) == {dense, calls["drop"].outputs[0], last}
    assert edited.only_use(dense) == (calls["head"], last)


def test_an_edited_graph_tells_what_is_in_the_way():
    model = diamond()
    graph = Graph.of(model, nested="keep")
    edited, calls = EditedGraph(model, graph), by_name(graph)
    with pytest.raises(ObstacleError, match="goes to several layers"):
        edited.only_use(graph.inputs[0])
    with pytest.raises(ObstacleError, match="'second' makes is an output of the model"):
        edited.only_use(calls["second"].outputs[0])
    with pytest.raises(ObstacleError, match="an input of the model comes before it"):
        edited.producer(graph.inputs[0])


def test_usage_counts_the_calls_in_all_models():
    shared = L.Dense(6, name="shared")
    body = keras.Sequential([keras.Input((6,)), shared], name="body")
    inputs = keras.Input((6,))
    model = keras.Model(inputs, shared(body(inputs)))
    usage = Usage.of(model)
    assert set(usage.paths.values()) == {"", "body/"}
    with pytest.raises(ObstacleError, match="'shared' is called 2 times"):
        usage.check_called_once(shared)
