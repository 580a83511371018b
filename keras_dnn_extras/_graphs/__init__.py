"""Models as graphs of calls: read, compared, copied and changed."""

from keras_dnn_extras._graphs import equivalence, sample_inputs
from keras_dnn_extras._graphs.calls import Call, Value, fill_in, values_of
from keras_dnn_extras._graphs.editing import EditedGraph
from keras_dnn_extras._graphs.graph import Graph
from keras_dnn_extras._graphs.graph_copies import Changes, Copy
from keras_dnn_extras._graphs.layer_copies import Edit, without_activation
from keras_dnn_extras._graphs.likeness import NoInputsError
from keras_dnn_extras._graphs.no_ops import is_no_op
from keras_dnn_extras._graphs.obstacles import ObstacleError
from keras_dnn_extras._graphs.outputs import (
    OF_CLASSES,
    OF_ONE_UNIT,
    is_of_probabilities,
    output_activations,
)
from keras_dnn_extras._graphs.rewriting import check_followed, copy_model
from keras_dnn_extras._graphs.sample_data import checked_inputs
from keras_dnn_extras._graphs.sample_inputs import like_data
from keras_dnn_extras._graphs.unbuilt_copies import trial_copies
from keras_dnn_extras._graphs.usage import Usage

__all__ = [
    "OF_CLASSES",
    "OF_ONE_UNIT",
    "Call",
    "Changes",
    "Copy",
    "Edit",
    "EditedGraph",
    "Graph",
    "NoInputsError",
    "ObstacleError",
    "Usage",
    "Value",
    "check_followed",
    "checked_inputs",
    "copy_model",
    "equivalence",
    "fill_in",
    "is_no_op",
    "is_of_probabilities",
    "like_data",
    "output_activations",
    "sample_inputs",
    "trial_copies",
    "values_of",
    "without_activation",
]
