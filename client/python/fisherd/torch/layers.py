"""Which layers of a model are captured, and what their factors are called."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection

import torch
from torch import nn

from fisherd.types import FullyConnectedDiagonal

# By their names in the model, or a function of name and module.
Choice = Collection[str] | Callable[[str, nn.Linear], bool]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A captured layer: its name in the model, its factor's name on the server, and the module."""

    name: str
    factor: str
    module: nn.Linear

    @property
    def kind(self) -> FullyConnectedDiagonal:
        """What the factor is of."""
        module = self.module
        return FullyConnectedDiagonal(module.in_features, module.out_features, has_bias=module.bias is not None)

    @property
    def parameters(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weight [O, I] and bias [O]."""
        return self.module.weight, self.module.bias

    def parameter_name(self, parameter: str) -> str:
        """Return what the model calls its "weight" or "bias"."""
        return f"{self.name}.{parameter}" if self.name else parameter


def find_layers(model: nn.Module, prefix: str, choice: Choice | None) -> list[Layer]:
    """Return the nn.Linear modules that are to be captured, in the model's order.

    Without a choice: all whose weight is trained. MultiheadAttention's out_proj is not among them, as it is never
    called: PyTorch uses its weight directly. A module that is part of the model twice is one layer.

    ValueError: a chosen layer is not there; two layers share one weight, whose Fisher is neither's; nothing is left.
    """
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if choice is None:
        uncalled = nn.modules.linear.NonDynamicallyQuantizableLinear
        chosen = [name for name, module in linears.items() if not isinstance(module, uncalled)]
    elif callable(choice):
        chosen = [name for name, module in linears.items() if choice(name, module)]
    else:
        unknown = sorted(set(choice) - linears.keys())
        if unknown:
            message = f"the model has no Linear layers {', '.join(unknown)}; it has {', '.join(linears)}"
            raise ValueError(message)
        chosen = [name for name in linears if name in set(choice)]
    layers = [_layer(name, linears[name], prefix) for name in chosen if linears[name].weight.requires_grad]
    if not layers:
        message = "the model has no Linear layer, of those chosen, whose weight is trained"
        raise ValueError(message)
    _check_shared_weights(layers)
    return layers


def _layer(name: str, module: nn.Linear, prefix: str) -> Layer:
    return Layer(name, prefix + name if name else prefix.rstrip("/") or "linear", module)


def _check_shared_weights(layers: list[Layer]) -> None:
    owners: dict[int, str] = {}
    for layer in layers:
        owner = owners.setdefault(id(layer.module.weight), layer.name)
        if owner != layer.name:
            message = f"the layers {owner} and {layer.name} share one weight; choose the layers without one of them"
            raise ValueError(message)
