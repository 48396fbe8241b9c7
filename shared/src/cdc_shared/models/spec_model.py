"""What all parts of a pipeline's spec have in common."""

from pydantic import BaseModel, ConfigDict


class SpecModel(BaseModel):
    """Frozen, refuses unknown fields, and shows no input value in its errors: a mistake may hold a password."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
