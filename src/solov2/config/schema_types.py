"""What the parts of the schema share: the frozen base model, number types, conflicts between settings."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Conflict(NamedTuple):
    """Settings that are legal alone and wrong together."""

    paths: tuple[str, ...]
    message: str


class ConflictError(ValueError):
    """Carries every conflict through pydantic, so that a recipe's report can name the lines at fault."""

    def __init__(self, conflicts: list[Conflict]) -> None:
        super().__init__("; ".join(conflict.message for conflict in conflicts))
        self.conflicts = conflicts


class Settings(BaseModel):
    """A frozen group of settings that refuses unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
