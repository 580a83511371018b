"""The command line."""

from keras_dnn_extras.command_line.commands import main

__all__ = ["main"]
