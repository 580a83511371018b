"""Attributes that Keras sets in models and layers while they are called or trained."""

SET_IN_TRAINING = {
    *("history", "stop_training", "stop_evaluating", "stop_predicting", "_eval_epoch_iterator"),
    *("_jax_state", "_jax_state_synced", "_compiled_trainable_state"),
}
"""Apart from those that each model has from the start.

`_compile_config` is not among them: `compile`, which makes it anew, is how Keras is told of a change.
"""

TRACKED_BY_TENSORFLOW = "_self_"
"""How attributes begin in which TensorFlow keeps once more what the attributes of a layer hold."""

MASKS_OF_CELLS = {"_dropout_mask", "_recurrent_dropout_mask"}
"""Of recurrent layers, which reset them in each call."""
