"""Hooks: what a layer's calls take in, and the gradients of what they give out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn

# Whose labels: the data's (the empirical Fisher), or those that the model predicts (the Fisher).
Labels = Literal["empirical", "sampled"]


@dataclasses.dataclass(eq=False)
class Call:
    """One call of a layer and the gradient of its output.

    inputs: [N, …, I]. grads: [N, …, O]. Times, of forward and backward pass, are of the layer's own clock.
    """

    inputs: torch.Tensor
    grads: torch.Tensor
    forwarded: int
    arrived: int


class LayerCapture:
    """The hooks of one layer.

    Run by the threads that run the model and autograd; take() and clear() by the one that trains, between the passes.

    The gradient is taken at the output's autograd node, so that what happens to the output later, in place or not, does
    not matter; nor does checkpointing, where the call whose graph is walked is the one that counts. Inputs live as
    long as the graph does, and no longer.
    """

    def __init__(self, module: nn.Linear, wanted: Callable[[nn.Module], bool], listening: Callable[[], bool]) -> None:
        """`wanted`: whether a call is captured; `listening`: whether the backward pass under way is."""
        self._wanted = wanted
        self._listening = listening
        self._clock = 0
        self._calls: dict[int, Call] = {}  # by their forward pass, in the order in which the gradients came
        self._handle = module.register_forward_hook(_Hook(self._on_forward))

    def take(self) -> list[Call]:
        """Return the calls whose gradients have arrived since the last time, in that order."""
        calls, self._calls = self._calls, {}
        return list(calls.values())

    def clear(self) -> None:
        """Forget them."""
        self._calls = {}

    def remove(self) -> None:
        """Remove the hook from the module; graphs that still live are not heard any more either."""
        self._handle.remove()
        self._wanted = lambda _: False
        self._listening = lambda: False
        self.clear()

    def _on_forward(self, module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        trained = torch.is_grad_enabled() and output.requires_grad and bool(module.weight.requires_grad)
        if not trained or not self._wanted(module):
            return
        if not inputs:
            message = "a captured Linear was called with its input by keyword; pass it by position"
            raise TypeError(message)
        self._clock += 1
        own, forwarded, shape = _own(inputs[0]), self._clock, output.shape
        computed = _computed(output)
        node: Any = computed.grad_fn
        place = computed.output_nr
        node.register_hook(lambda _, grads: self._on_gradient(own, forwarded, shape, grads[place]))

    def _on_gradient(self, inputs: torch.Tensor, forwarded: int, shape: torch.Size, grads: torch.Tensor | None) -> None:
        if grads is None or not self._listening():
            return
        self._clock += 1
        grads = grads.reshape(shape)
        before = self._calls.get(forwarded)  # of another backward pass of the same graph: gradients add
        total = grads.detach() if before is None else before.grads + grads.detach()
        self._calls[forwarded] = Call(inputs, total, forwarded, self._clock)


class _Hook:
    """Calls a function; a copy of it, in a model that is copied or saved, does nothing: that model is another."""

    def __init__(self, function: Callable[..., None] | None = None) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> None:
        if self._function is not None:
            self._function(*arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hook, ()


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor; a copy of the caller's own data, which may change before it has been sent."""
    return tensor.detach() if tensor.requires_grad else tensor.detach().clone()


def _computed(output: torch.Tensor) -> torch.Tensor:
    """Return what the output is a view of, if it is one of the same elements: PyTorch computes [N, T, O] as [N·T, O].

    When a view is changed in place, its own node leaves the graph; that of what it views stays.
    """
    base = output._base if output._is_view() else None  # noqa: SLF001 - there is no public name
    whole = base is not None and base.grad_fn is not None and base.numel() == output.numel() and base.is_contiguous()
    return base if base is not None and whole else output
