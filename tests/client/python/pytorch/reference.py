"""What a capture must give: squares of float64 gradients of single examples, recomputed by vmap."""

import copy

import numpy as np

try:
    from torch.func import functional_call, grad, vmap
except ImportError:  # PyTorch 1.13
    from functorch import grad, make_functional, vmap

    functional_call = None


def covariance(model, loss, *batch):
    """Return the mean over examples of the squares of d loss(model(x[None]), y[None]) / d parameter, by name."""
    wide = copy.deepcopy(model).double()
    wide.eval()
    batch = [part.double() if part.is_floating_point() else part for part in batch]
    names = [name for name, _ in wide.named_parameters()]
    if functional_call is None:
        stateless, parameters = make_functional(wide)

        def run(parameters, x):
            return stateless(parameters, x)
    else:
        parameters = tuple(parameter.detach() for parameter in wide.parameters())

        def run(parameters, x):
            return functional_call(wide, dict(zip(names, parameters, strict=True)), (x,))

    def one(parameters, x, *rest):
        return loss(run(parameters, x[None]), *(part[None] for part in rest))

    single = grad(one)
    grads = vmap(single, in_dims=(None, *[0] * len(batch)))(tuple(parameters), *batch)
    return {name: g.detach().square().mean(0).cpu().numpy() for name, g in zip(names, grads, strict=True)}


def assert_close(actual, expected, rtol=1e-5):
    """All entries, relative to themselves; those that are 0 in exact arithmetic, to the largest."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        atol = 1e-7 * rtol * value.max()
        np.testing.assert_allclose(actual[name].double().cpu().numpy(), value, rtol=rtol, atol=atol, err_msg=name)
