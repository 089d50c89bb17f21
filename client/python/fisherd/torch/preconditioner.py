"""An optimizer whose gradients are multiplied by a power of the Fisher first."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from fisherd.channel import Backoff
from fisherd.errors import UnavailableError
from fisherd.operators import Damping, matpower
from fisherd.torch import towers
from fisherd.torch.fisher import Fisher
from fisherd.torch.layers import Layer
from fisherd.torch.sender import Ticket
from fisherd.transfer import MultiplyItem
from fisherd.types import MinVersion, Version

Versions = dict[str, MinVersion]  # by layer
Answer = TypeVar("Answer")

_FIRST_DELAY, _MOST_DELAY = 0.05, 2.0  # seconds between attempts


class Preconditioner(torch.optim.Optimizer):
    """Wraps an optimizer: step() multiplies the captured layers' gradients by (v + λ)^e, then lets it take its step.

    To schedulers, to GradScaler and to code that saves it, it is the optimizer that it wraps: param_groups, state and
    state_dict() are that one's own. Parameters of other layers are left to it as they are.

    Used by the thread that trains. Several ranks get the same factors, bit for bit, whichever policy is chosen.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        fisher: Fisher,
        *,
        exponent: float = -0.5,
        damping: Damping = 1e-3,
        fresh: bool = True,
        refresh_every: int | None = None,
        timeout: float = 600.0,
    ) -> None:
        """Wrap an optimizer.

        fisher: what attach() returned for the model whose parameters these are.
        exponent: e; −½ as Adam and its kin have it, −1 for the natural gradient.
        damping: λ, in units of squared gradients: a number, or a damping function's name (Client.set_damping).
        fresh: wait until this very step is part of the Fisher; else take what is there. The first step is waited for
            in any case.
        refresh_every: k: keep (v + λ)^e here, on the parameters' device, and read it anew on every k-th step if it has
            changed, instead of sending the gradients to the server.
        timeout: seconds that a step may wait for the server, over cuts, and for other towers. DeadlineExceededError,
            UnavailableError.
        """
        # Not super().__init__(): the state is the wrapped optimizer's, and what is not found here is looked up there.
        if refresh_every is not None and refresh_every < 1:
            message = f"refresh_every is {refresh_every}; expected at least 1"
            raise ValueError(message)
        self.optimizer = optimizer
        self.fisher = fisher
        self._operator = matpower(exponent, damping)
        self._fresh = fresh
        self._refresh_every = refresh_every
        self._timeout = timeout
        self._steps = 0
        self._kept: dict[str, list[torch.Tensor]] = {}  # by layer, its parameters' part of the operator
        self._read_versions: dict[str, Version] = {}  # and of which version it is

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Precondition the gradients and take the wrapped optimizer's step. closure: evaluates the loss, as usual.

        RuntimeError if no layer was ever captured; what Fisher.step(), Client.multiply_all() and Client.read() raise.
        """
        if closure is None:
            self.precondition()
            return self.optimizer.step()

        def evaluate() -> Any:
            with torch.enable_grad():
                loss = closure()
            self.precondition()
            return loss

        return self.optimizer.step(evaluate)

    @torch.no_grad()
    def precondition(self) -> None:
        """End the capture's step, and multiply the gradients in place."""
        versions = self._await_versions(self.fisher.step())
        layers = [layer for layer in self.fisher.layers if layer.module.weight.grad is not None]
        if self._refresh_every is not None:
            self._multiply_here(layers, versions)
        elif self._fresh:
            self._multiply_there(layers, versions)
        else:
            self._multiply_for_all(layers, versions)
        self._steps += 1

    def zero_grad(self, *args: Any, **kwargs: Any) -> None:
        """Clear the gradients; and what was captured with them, if no step was taken: GradScaler skips some."""
        self.fisher.forget_gradients()
        self.optimizer.zero_grad(*args, **kwargs)

    # ---- What is the wrapped optimizer's

    _step_supports_amp_scaling = False  # GradScaler is to unscale the gradients before step()

    @property
    def param_groups(self) -> Any:  # type: ignore[override]
        """The wrapped optimizer's own."""
        return self.optimizer.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        """The wrapped optimizer's own."""
        return self.optimizer.state

    @property
    def defaults(self) -> Any:  # type: ignore[override]
        """The wrapped optimizer's own."""
        return self.optimizer.defaults

    def state_dict(self) -> Any:
        """Return the wrapped optimizer's state; the Fisher's own is on the server."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: Any) -> None:
        """Load what state_dict() of this, or of the optimizer without a wrapper, returned."""
        self.optimizer.load_state_dict(state_dict)

    def add_param_group(self, param_group: Any) -> None:
        """Add parameters to the wrapped optimizer."""
        self.optimizer.add_param_group(param_group)

    def __getattr__(self, name: str) -> Any:
        if name == "optimizer":  # while it is copied or unpickled
            raise AttributeError(name)
        return getattr(self.optimizer, name)

    def __repr__(self) -> str:
        return f"Preconditioner({self.optimizer!r})"

    # ---- Policies

    def _await_versions(self, ticket: Ticket) -> Versions:
        versions = self.fisher.versions()
        if self._fresh or not versions:
            ticket.wait(self._timeout)
            versions = self.fisher.versions()
        if not versions and not self.fisher.stats().captured:
            message = (
                "no layer has been captured yet: call the model in training mode and backward() before step()"
                ", and with labels='sampled' also Fisher.sample()"
            )
            raise RuntimeError(message)
        return versions

    def _multiply_there(self, layers: list[Layer], versions: Versions) -> None:
        """Have the server multiply the gradients of all layers that were ever captured, in one call."""
        captured = [layer for layer in layers if layer.name in versions]
        items = []
        for layer in captured:
            weight, bias = layer.parameters
            bias_grad = None if bias is None else _grad(bias)
            version = self._wanted(versions[layer.name])
            items.append(MultiplyItem(layer.factor, self._operator, _grad(weight), bias_grad, "out_in", version))
        products = self._insist(lambda timeout: self.fisher.client.multiply_all(items, timeout=timeout))
        for layer, product in zip(captured, products, strict=True):
            for parameter, result in zip(layer.parameters, (product.weight, product.bias), strict=True):
                if parameter is not None and parameter.grad is not None:
                    parameter.grad.copy_(torch.from_numpy(result))

    def _multiply_for_all(self, layers: list[Layer], versions: Versions) -> None:
        """Do the same in rank 0 for all ranks, who might find different versions."""
        if towers.is_first():
            self._multiply_there(layers, versions)
        grads = [parameter.grad for layer in layers for parameter in layer.parameters if parameter is not None]
        towers.share([grad for grad in grads if grad is not None])

    def _multiply_here(self, layers: list[Layer], versions: Versions) -> None:
        """Multiply by operators that are kept here."""
        due = self._steps % (self._refresh_every or 1) == 0
        for layer in layers:
            if due or layer.name not in self._kept:
                self._refresh(layer, versions.get(layer.name))
            for parameter, factor in zip(_present(layer), self._kept[layer.name], strict=True):
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)

    def _refresh(self, layer: Layer, version: MinVersion | None) -> None:
        """Read a layer's operator, if it has changed, in rank 0 for all; ones if it was never captured."""
        kept = self._kept.setdefault(layer.name, [torch.ones_like(parameter) for parameter in _present(layer)])
        if towers.is_first() and version is not None:
            asked: Any = {"min_version": self._wanted(version), "if_version_not": self._read_versions.get(layer.name)}
            read = self.fisher.client.read
            reading = self._insist(
                lambda timeout: read(layer.factor, self._operator, layout="out_in", timeout=timeout, **asked)
            )
            if not reading.unchanged:
                for ours, part in zip(kept, (reading.weight, reading.bias), strict=False):
                    ours.copy_(torch.from_numpy(part))
                if not self._operator.matpower.damping.name:  # whose value may change under the same version
                    self._read_versions[layer.name] = reading.version
        towers.share(kept)

    def _insist(self, call: Callable[[float], Answer]) -> Answer:
        """Make a call that changes nothing, with the seconds that it has, until it is not cut."""
        deadline = time.monotonic() + self._timeout
        backoff = Backoff(_FIRST_DELAY, _MOST_DELAY)
        while True:
            try:
                return call(max(deadline - time.monotonic(), 0.0))
            except UnavailableError as error:
                delay = backoff.next(error)
                if time.monotonic() + delay > deadline:
                    raise
                time.sleep(delay)

    def _wanted(self, version: MinVersion) -> MinVersion:
        """Return what to wait for; at least for the first step, before which there is no Fisher."""
        return version if self._fresh else MinVersion(version.incarnation, 1)


def _present(layer: Layer) -> list[torch.Tensor]:
    return [parameter for parameter in layer.parameters if parameter is not None]


def _grad(parameter: torch.Tensor) -> torch.Tensor:
    """Return the gradient in a type of the wire that loses nothing; zeros where there is none."""
    grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return grad if grad.dtype == torch.float64 else grad.float()
