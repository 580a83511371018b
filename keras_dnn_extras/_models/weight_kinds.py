"""Layers that compute with something else than their kernel: quantized, or with LoRA weights."""

from typing import Any

from keras_dnn_extras._keras_internals import flat_layers


def is_quantized(layer: Any) -> bool:
    """Return whether the weights of `layer` itself are quantized."""
    return getattr(layer, "quantization_mode", None) is not None


def has_lora(layer: Any) -> bool:
    """Return whether `layer` itself adds a product of LoRA weights to its kernel."""
    return bool(getattr(layer, "lora_enabled", False))


def computes_with_its_kernel(layer: Any) -> bool:
    """Return whether what `layer` multiplies by is its kernel, and nothing else."""
    return not (is_quantized(layer) or has_lora(layer))


def kernel_obstacle(layer: Any) -> str | None:
    """Return a clause that says why the kernels in `layer` are not what it computes with, or None."""
    for part in flat_layers(layer):
        if is_quantized(part):
            return f"{layer.name!r} is quantized"
        if has_lora(part):
            return f"{layer.name!r} has LoRA weights, which have to be merged first"
    return None
