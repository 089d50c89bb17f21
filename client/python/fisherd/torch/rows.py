"""From calls to batches: which rows are examples of their own, and what their gradients are to be multiplied by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import torch

from fisherd.torch.capture import Call

Rank3 = Literal["tokens", "sum_then_square"]

_MATRIX_AXES = 2
_CHUNK_BYTES = 64 << 20  # of per-example gradients that exist at once


@dataclasses.dataclass(frozen=True)
class Part:
    """Some of a step's rows of one layer.

    inputs: [N, I], or [N, T, I] where an example has T rows whose outer products are summed before they are squared.
    grads: [N, O], or [N, T, O]. scale: what multiplies them.
    """

    inputs: torch.Tensor
    grads: torch.Tensor
    scale: float


def split(name: str, calls: Sequence[Call], rank3: Rank3 | None, divisor: Callable[[int], float]) -> list[Part]:
    """Return the rows of a layer's calls.

    name: the layer's, for messages. divisor: what the loss was divided by, from the number of rows of a call.

    ValueError: a rank above 2, or a layer that is called more than once for one loss, and no choice was made.
    """
    parts: list[Part] = []
    for group in _passes(calls):
        several = len(group) > 1 or group[0].inputs.dim() > _MATRIX_AXES
        if several and rank3 is None:
            raise ValueError(_no_choice(name, group))
        if several and rank3 == "sum_then_square":
            parts.append(_summed(name, group, divisor))
        else:
            parts += [_rows(call, divisor) for call in group]
    return parts


def to_batch(parts: Sequence[Part]) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return inputs [N, I], grads [N, O] and gradient_scale of parts that are all rows."""
    inputs = torch.cat([part.inputs for part in parts]) if len(parts) > 1 else parts[0].inputs
    scales = {part.scale for part in parts}
    if len(scales) == 1:
        grads = torch.cat([part.grads for part in parts]) if len(parts) > 1 else parts[0].grads
        return inputs, grads, scales.pop()
    return inputs, torch.cat([_wide(part.grads) * part.scale for part in parts]), 1.0


def to_contribution(parts: Sequence[Part], *, has_bias: bool) -> tuple[torch.Tensor, int]:
    """Return Σ_n (Σ_t a_nt g_ntᵀ)² / N, [H, O] in 64 bits where the device has them, and N.

    In chunks of examples, so that not all per-example gradients exist at once.
    """
    first = parts[0]
    sizes = (first.inputs.shape[-1] + has_bias, first.grads.shape[-1])
    total = torch.zeros(sizes, dtype=torch.float32 if first.grads.device.type == "mps" else torch.float64)
    total = total.to(first.grads.device)
    rows = 0
    for part in parts:
        inputs, grads = _wide(part.inputs), _wide(part.grads) * part.scale
        if inputs.dim() == _MATRIX_AXES:
            inputs, grads = inputs[:, None], grads[:, None]
        rows += len(inputs)
        chunk = max(1, _CHUNK_BYTES // (total.numel() * inputs.element_size()))
        for a, g in zip(torch.split(inputs, chunk), torch.split(grads, chunk), strict=True):
            gradients = torch.einsum("nti,nto->nio", a, g)
            total[: a.shape[-1]] += gradients.square_().sum(0)
            if has_bias:
                total[-1] += g.sum(1).square_().sum(0)
    return total / rows, rows


def _passes(calls: Sequence[Call]) -> list[list[Call]]:
    """Group calls by the loss they were made for: those that were all forwarded before any gradient arrived.

    Accumulated gradients, forward, backward, forward, backward, are passes of their own.
    """
    passes: list[list[Call]] = []
    for call in calls:
        if passes and call.forwarded < passes[-1][-1].arrived:
            passes[-1].append(call)
        else:
            passes.append([call])
    return passes


def _rows(call: Call, divisor: Callable[[int], float]) -> Part:
    inputs = _as_computed(call).reshape(-1, call.inputs.shape[-1])
    return Part(inputs, call.grads.reshape(-1, call.grads.shape[-1]), divisor(len(inputs)))


def _summed(name: str, group: Sequence[Call], divisor: Callable[[int], float]) -> Part:
    examples = {len(call.inputs) for call in group}
    if len(examples) > 1 or group[0].inputs.dim() == 1:
        message = (
            f"layer {name} was called for one loss with {sorted(examples)} examples; a sum over them needs the same"
        )
        raise ValueError(message)
    rows = examples.pop()
    inputs = [_as_computed(call).reshape(rows, -1, call.inputs.shape[-1]) for call in group]
    grads = [call.grads.reshape(rows, -1, call.grads.shape[-1]) for call in group]
    return Part(torch.cat(inputs, 1), torch.cat(grads, 1), divisor(rows))


def _as_computed(call: Call) -> torch.Tensor:
    """Return the inputs in the type that the layer computed with: under autocast not their own."""
    return call.inputs.to(call.grads.dtype)


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _no_choice(name: str, group: Sequence[Call]) -> str:
    seen = f"has inputs of shape {list(group[0].inputs.shape)}" if len(group) == 1 else f"is called {len(group)} times"
    return (
        f"layer {name} {seen} for one loss: choose rank3='tokens' if each row is an example of its own, or "
        "rank3='sum_then_square' if the rows of an example belong together"
    )
