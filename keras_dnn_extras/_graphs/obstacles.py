"""What is in the way of changing a layer."""

from typing import Any


class ObstacleError(Exception):
    """A fold is not possible: the message is a clause that names the layers in the way."""


def check_unquantized(layer: Any) -> None:
    for part in layer._flatten_layers():
        if part.quantization_mode is not None:
            raise ObstacleError(f"{layer.name!r} is quantized")
        if getattr(part, "lora_enabled", False):
            raise ObstacleError(f"{layer.name!r} has LoRA weights, which have to be merged first")
