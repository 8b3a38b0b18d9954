"""The base of every configuration model."""

from pydantic import BaseModel, ConfigDict


class Schema(BaseModel):
    """Frozen; unknown keys are refused; the docstring under a field becomes its description in the JSON schema."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)
