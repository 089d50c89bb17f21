"""The wrapped optimizer: what it multiplies by, and that it is the optimizer to everyone else."""

import copy
import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from reference import assert_close, covariance  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import fisherd.torch  # noqa: E402

X, Y = (
    torch.randn(32, 6, generator=torch.Generator().manual_seed(3), device="cpu").to(torch.empty(0).device),
    torch.arange(32) % 4,
)


@pytest.fixture
def model():
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 4, bias=False))


@pytest.fixture
def fisher(client, model, name):
    with fisherd.torch.attach(model, client, prefix=f"{name}/") as fisher:
        yield fisher


def make(model, fisher, rate=0.1, **options):
    return fisherd.torch.Preconditioner(torch.optim.SGD(model.parameters(), lr=rate), fisher, **options)


def backward(model):
    loss = functional.cross_entropy(model(X), Y)
    loss.backward()
    return loss


@pytest.mark.parametrize("policy", [{}, {"fresh": False}, {"refresh_every": 1}, {"refresh_every": 2, "fresh": False}])
def test_gradients_are_multiplied(model, fisher, policy):
    optimizer = make(model, fisher, exponent=-0.75, damping=0.01, **policy)
    for _ in range(3):
        backward(model)
        gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        optimizer.precondition()
        if policy.get("fresh", True):
            powers = fisher.read()
            for name, parameter in model.named_parameters():
                power = (powers[name].double() + 0.01) ** -0.75 if name in powers else 1.0
                expected = gradients[name].double() * power
                np.testing.assert_allclose(parameter.grad.cpu(), expected.cpu(), rtol=2e-5, atol=1e-9)
        else:
            assert not torch.equal(model[0].weight.grad, gradients["0.weight"])
            assert torch.equal(model[1].weight.grad, gradients["1.weight"])
        optimizer.zero_grad()


def test_kept_operators_are_refreshed_every_k_steps(model, fisher):
    optimizer = make(model, fisher, refresh_every=3)
    kept = []
    for _ in range(5):
        backward(model)
        optimizer.step()
        kept.append(optimizer._kept["0"][0].clone())
        optimizer.zero_grad()
    same = [torch.equal(a, b) for a, b in itertools.pairwise(kept)]
    assert same == [True, True, False, True]


def test_training_gets_somewhere(model, fisher):
    optimizer = make(model, fisher, damping=1e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        losses.append(backward(model).item())
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


def test_a_damping_by_name(client, model, fisher, name):
    client.set_damping(name, 0.5)
    backward(model)
    before = model[2].weight.grad.clone()
    optimizer = make(model, fisher, damping=name, exponent=-1, refresh_every=1)
    optimizer.precondition()
    expected = before / (fisher.read()["2.weight"] + 0.5)
    torch.testing.assert_close(model[2].weight.grad, expected)
    client.set_damping(name, 5.0)  # under the same version
    model[2].weight.grad.copy_(before)
    optimizer.precondition()
    torch.testing.assert_close(model[2].weight.grad, before / (fisher.read()["2.weight"] + 5))


def test_it_is_the_wrapped_optimizer_to_others(model, fisher):
    inner = torch.optim.Adam(model.parameters(), lr=0.1)
    optimizer = fisherd.torch.Preconditioner(inner, fisher)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert optimizer.param_groups is inner.param_groups
    assert optimizer.defaults is inner.defaults
    backward(model)
    optimizer.step()
    assert optimizer.state is inner.state
    assert len(optimizer.state) == 5
    saved = copy.deepcopy(optimizer.state_dict())
    fresh = fisherd.torch.Preconditioner(torch.optim.Adam(model.parameters(), lr=0.5), fisher)
    fresh.load_state_dict(saved)
    assert fresh.param_groups[0]["lr"] == 0.1
    assert fresh.optimizer.state[model[0].weight]["step"] == 1
    plain = torch.optim.Adam(model.parameters())
    plain.load_state_dict(saved)
    extra = nn.Parameter(torch.zeros(3))
    optimizer.add_param_group({"params": [extra], "lr": 7})
    assert inner.param_groups[1]["lr"] == 7
    optimizer.zero_grad(set_to_none=True)
    assert model[0].weight.grad is None
    assert "Adam" in repr(optimizer)
    with pytest.raises(AttributeError):
        _ = optimizer.nothing_of_the_kind


@pytest.mark.filterwarnings("error")
def test_schedulers(model, fisher):
    optimizer = make(model, fisher)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    for expected in (0.05, 0.025):
        backward(model)
        optimizer.step()
        scheduler.step()
        assert optimizer.param_groups[0]["lr"] == optimizer.optimizer.param_groups[0]["lr"] == expected


@pytest.mark.parametrize("inner", ["SGD", "LBFGS"])
def test_closures(model, fisher, inner):
    wrapped = getattr(torch.optim, inner)(model.parameters(), lr=0.01)
    optimizer = fisherd.torch.Preconditioner(wrapped, fisher)
    calls = []

    def closure():
        optimizer.zero_grad()
        calls.append(backward(model))
        return calls[-1]

    assert optimizer.step(closure) is not None
    assert len(calls) == fisher.stats().captured >= 1


def test_a_step_that_is_not_taken_is_forgotten(client, model, fisher, name):
    """As under a GradScaler that found infinities and skips the optimizer."""
    optimizer = make(model, fisher)
    for _ in range(3):
        optimizer.zero_grad()
        backward(model)
    optimizer.step()
    assert client.read(f"{name}/0").steps_committed == 1
    assert fisher._captures[0].take() == []


def test_grad_scaler(client, model, name):
    """The first scale overflows: GradScaler takes no step, and nothing of it is captured."""
    try:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    except AttributeError:
        pytest.skip("this PyTorch has no GradScaler without CUDA")
    with fisherd.torch.attach(model, client, prefix=f"{name}/", scaler=scaler, decay=0) as fisher:
        optimizer = make(model, fisher)
        before = copy.deepcopy(model)
        for factor, steps in ((10, 0), (1, 1)):
            optimizer.zero_grad()
            scaler.scale(factor * functional.cross_entropy(model(X), Y)).backward()
            scaler.step(optimizer)
            scaler.update(1024.0)
            assert fisher.stats().steps == steps
        expected = covariance(before, functional.cross_entropy, X, Y)
        served = fisher.read()
        assert_close(served, {name: expected[name] for name in served})
    assert not torch.equal(model[0].weight, before[0].weight)


def test_nothing_captured_is_an_error(model, fisher):
    optimizer = make(model, fisher)
    model.eval()
    backward(model)
    with pytest.raises(RuntimeError, match="no layer has been captured yet"):
        optimizer.step()


def test_a_layer_without_a_gradient(model, fisher):
    optimizer = make(model, fisher)
    backward(model)
    model[2].weight.grad = None
    model[0].bias.grad = None
    optimizer.step()
    assert model[2].weight.grad is None


def test_after_a_detach_the_last_fisher_stays(model, fisher):
    optimizer = make(model, fisher)
    backward(model)
    optimizer.step()
    fisher.detach()
    optimizer.zero_grad()
    backward(model)
    gradient = model[2].weight.grad.clone()
    optimizer.precondition()
    torch.testing.assert_close(model[2].weight.grad, gradient * (fisher.read()["2.weight"] + 1e-3) ** -0.5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types(client, model, name, dtype):
    model = model.to(dtype)
    with fisherd.torch.attach(model, client, prefix=f"{name}/") as fisher:
        optimizer = make(model, fisher)
        functional.cross_entropy(model(X.to(dtype)).double(), Y).backward()
        optimizer.step()
        assert torch.isfinite(model[0].weight).all()
        assert model[0].weight.grad.dtype == dtype
