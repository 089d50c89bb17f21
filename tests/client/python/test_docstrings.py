"""Every public name says what it is, and every option what it does: the reference is made of nothing else."""

import importlib
import inspect
import re

import pytest

# Said where they are the same everywhere: names in Client, seconds in the package, data classes at their fields.
SELF_EVIDENT = {"name", "factor", "prefix", "timeout", "min_version", "layout", "policy", "bias", "error"}


def public(module):
    for name in module.__all__:
        member = getattr(module, name)
        if inspect.isclass(member) or inspect.isfunction(member):
            yield f"{module.__name__}.{name}", member


def members(path, member):
    yield path, member
    for name, attribute in vars(member).items() if inspect.isclass(member) else ():
        inner = attribute.__func__ if isinstance(attribute, (classmethod, staticmethod)) else attribute
        if not name.startswith("_") and (inspect.isfunction(inner) or isinstance(inner, property)):
            yield f"{path}.{name}", inner
        if name == "__init__":
            yield path, inner


def describes(doc, option):
    return re.search(rf"\b{option}\b", doc) is not None


@pytest.mark.parametrize("part", ["fisherd", "fisherd.torch", "fisherd.jax"])
def test_docstrings(part):
    try:
        module = importlib.import_module(part)
    except ImportError as error:
        pytest.skip(f"no {part} here: {error}")
    assert module.__doc__
    missing = []
    for path, member in public(module):
        for inner_path, inner in members(path, member):
            doc = (inspect.getdoc(inner) or "") + (inspect.getdoc(member) or "" if inner_path == path else "")
            missing += [] if doc else [inner_path]
            if not inspect.isfunction(inner):
                continue
            options = {
                name
                for name, parameter in inspect.signature(inner).parameters.items()
                if parameter.kind == parameter.KEYWORD_ONLY or parameter.default is not parameter.empty
            }
            missing += [f"{inner_path}: {name}" for name in options - SELF_EVIDENT if not describes(doc, name)]
    assert not missing
