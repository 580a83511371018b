"""The command line."""

from keras_dnn_extras.command_line.commands import main
from keras_dnn_extras.command_line.early_answers import answer_early

__all__ = ["answer_early", "main"]
