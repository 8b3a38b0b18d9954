"""The base of every configuration model, and names that several share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

CorpusName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=40)]
"""Lower-case letters, digits, `-` and `_`: the name is the first part of every sample key."""
NUMBER = "number"
"""Tag of the alternative, in a union of a number and a mapping, that is a number."""
DOTTED = "keys are dotted fields of another configuration"
"""Marks such a mapping: an override below it, ``overrides.a.b=value``, sets its key ``a.b``."""


class Schema(BaseModel):
    """Frozen; unknown keys are refused; the docstring under a field becomes its description in the JSON schema."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )
