"""Settings that take one of a few words refuse any other, when they are made."""

from dataclasses import fields
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from paramgen.backends.sane import DensitySettings
from paramgen.diffusion import Diffusion
from paramgen.errors import ParamgenError, require_choice
from paramgen.generators.settings import OptimizerSettings
from paramgen.nn.denoisers import DenoiserSettings
from paramgen.nn.latents import AutoencoderSettings
from paramgen.nn.recurrence import RecurrenceSettings
from paramgen.nn.states import StateSettings
from paramgen.nn.token_autoencoder import TokenAutoencoderSettings
from paramgen.nn.token_heads import HeadSettings

SETTINGS = (
    AutoencoderSettings,
    DenoiserSettings,
    DensitySettings,
    Diffusion,
    HeadSettings,
    OptimizerSettings,
    RecurrenceSettings,
    StateSettings,
    TokenAutoencoderSettings,
)


def words(hint: object) -> tuple[object, ...]:
    """The words of a ``Literal``, or of one that may be left out."""
    found = (kind for kind in (hint, *get_args(hint)) if get_origin(kind) is Literal)
    return get_args(next(found, None))


CHOICES = [
    (kind, field.name, words(get_type_hints(kind)[field.name]))
    for kind in SETTINGS
    for field in fields(kind)
    if words(get_type_hints(kind)[field.name])
]


@pytest.mark.parametrize(
    ("kind", "name", "choices"), CHOICES, ids=[f"{kind.__name__}-{name}" for kind, name, _ in CHOICES]
)
def test_another_word_is_refused(kind, name, choices):
    with pytest.raises(ParamgenError, match=rf"\.{name} is 'other', expected .*{choices[-2]}") as refused:
        kind(**{name: "other"})
    assert all(str(choice) in str(refused.value) for choice in choices)


def test_none_is_refused_unless_it_is_a_choice():
    require_choice(Literal["earlier", None], start=None)
    with pytest.raises(ParamgenError, match="start is None, expected earlier or later"):
        require_choice(Literal["earlier", "later"], start=None)
