"""What differs between TensorFlow, JAX and PyTorch."""

from keras_dnn_extras._backends.compilation import compiled, compiled_at_once, values_in_place
from keras_dnn_extras._backends.host_values import value_on_host
from keras_dnn_extras._backends.inference_mode import called_at_inference, called_in_mode
from keras_dnn_extras._backends.memory import memory_of_machine
from keras_dnn_extras._backends.precision import no_trace
from keras_dnn_extras._backends.quiet_threads import quiet
from keras_dnn_extras._backends.random_state import random_generators
from keras_dnn_extras._backends.replicas import mean_over_replicas, strategy_scope, sum_over_replicas
from keras_dnn_extras._backends.traced_ops import (
    after,
    depending_on,
    modulo,
    out_of_step,
    table_dtype,
    value_of,
    write_row,
)

__all__ = [
    "after",
    "called_at_inference",
    "called_in_mode",
    "compiled",
    "compiled_at_once",
    "depending_on",
    "mean_over_replicas",
    "memory_of_machine",
    "modulo",
    "no_trace",
    "out_of_step",
    "quiet",
    "random_generators",
    "strategy_scope",
    "sum_over_replicas",
    "table_dtype",
    "value_of",
    "value_on_host",
    "values_in_place",
    "write_row",
]
