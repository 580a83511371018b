"""Models as graphs of calls: read, compared, copied and changed."""

from keras_dnn_extras._graphs import equivalence, sample_inputs
from keras_dnn_extras._graphs.copying import copied
from keras_dnn_extras._graphs.editing import Wiring
from keras_dnn_extras._graphs.graph import Call, Graph, Level, Value, fill_in, values_of
from keras_dnn_extras._graphs.no_ops import is_idle
from keras_dnn_extras._graphs.obstacles import ObstacleError, check_unquantized
from keras_dnn_extras._graphs.output_activations import (
    OF_CLASSES,
    OF_ONE_UNIT,
    is_of_probabilities,
    output_activations,
)
from keras_dnn_extras._graphs.rewriting import (
    Changes,
    Copy,
    Edit,
    check_followed,
    rebuilt,
    without_activation,
)
from keras_dnn_extras._graphs.sample_data import checked_inputs
from keras_dnn_extras._graphs.sample_inputs import NoInputsError, like_data
from keras_dnn_extras._graphs.trial_copies import trial_copies
from keras_dnn_extras._graphs.usage import Census

__all__ = [
    "OF_CLASSES",
    "OF_ONE_UNIT",
    "Call",
    "Census",
    "Changes",
    "Copy",
    "Edit",
    "Graph",
    "Level",
    "NoInputsError",
    "ObstacleError",
    "Value",
    "Wiring",
    "check_followed",
    "check_unquantized",
    "checked_inputs",
    "copied",
    "equivalence",
    "fill_in",
    "is_idle",
    "is_of_probabilities",
    "like_data",
    "output_activations",
    "rebuilt",
    "sample_inputs",
    "trial_copies",
    "values_of",
    "without_activation",
]
