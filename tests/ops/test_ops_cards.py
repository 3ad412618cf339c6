"""Every card is documented, sampled and can be called as it says."""

import inspect
import pydoc
import re

import pytest

import deepkit as dk
from deepkit.card import registry
from deepkit.testing import samples_of
from deepkit.testing.cases import PLUMBING

NAMES = list(registry)


@pytest.mark.parametrize("name", NAMES)
def test_documented(name):
    """A docstring says what comes out: an equation, or a sentence."""
    doc = inspect.cleandoc(registry[name].__doc__ or "")
    equation, sentence = re.search(r"\w.* = .*\w", doc), re.search(r"\w+ \w+.*[.:]", doc)
    assert equation or sentence, f"{name}: expected a docstring that says what comes out"


@pytest.mark.parametrize("name", NAMES)
def test_sampled(name):
    assert samples_of(name), f"{name}: a card needs samples; without them nothing tests it"


def test_hand_made_samples_are_for_plumbing_only():
    assert set(PLUMBING) <= set(registry)
    in_place = {n for n in PLUMBING if n.endswith("_")}
    assert set(PLUMBING) - in_place == {"zeros_like", "join", "concat", "stack", "to"}


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_how_it_is_called(name):
    op = registry[name]
    said = pydoc.plain(pydoc.render_doc(op))
    assert f"{name}{inspect.signature(op.prepare)}" in said
    assert inspect.getdoc(op).splitlines()[0] in said


def test_help_shows_options_and_defaults():
    said = pydoc.plain(pydoc.render_doc(dk.ops.conv2d))
    assert "stride: 'Any' = 1, padding: 'Any' = 0, dilation: 'Any' = 1, groups: 'int' = 1" in said


@pytest.mark.parametrize("name", NAMES)
def test_public(name):
    assert getattr(dk.ops, name) is registry[name]


@pytest.mark.parametrize("name", [n for n in NAMES if registry[n].options])
def test_options_are_parameters(name):
    parameters = inspect.signature(registry[name].prepare).parameters
    assert set(registry[name].options) <= set(parameters)


@pytest.mark.parametrize("name", [n for n in NAMES if registry[n].options])
def test_samples_cover_every_option(name):
    """Each option is given by a sample, unless its values differ in nothing but a number."""
    op = registry[name]
    given = {p for s in samples_of(name) for p in s.params}
    names = list(inspect.signature(op.prepare).parameters)
    given |= {names[i] for s in samples_of(name) for i in range(len(s.args))}
    assert set(op.options) <= given


@pytest.mark.parametrize("name", NAMES)
def test_rules_fit_the_signature(name):
    op = registry[name]
    assert not (op.grads and op.together)
    if op.grads and not op.variadic:
        assert len(op.grads) == len(op.ins)
