"""The service's own answers, as its OpenAPI description shows them."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Size(BaseModel):
    """Of a picture, upright."""

    width: int = Field(description="pixels")
    height: int = Field(description="pixels")


class Rle(BaseModel):
    """A mask as COCO stores it."""

    size: list[int] = Field(description="height and width")
    counts: str = Field(description="compressed run lengths, down the columns")


class FoundInstance(BaseModel):
    """One object."""

    category: str
    category_id: int = Field(description="of the annotation file the model was trained on")
    score: float = Field(description="0..1")
    box: list[float] = Field(description="x0 y0 x1 y1 in pixels, right and bottom exclusive")
    area: int = Field(description="pixels of the mask")
    segmentation: Rle | list[list[float]] = Field(description="RLE, or outlines as x0 y0 x1 y1 ... in pixels")


class Timing(BaseModel):
    """Milliseconds."""

    decode_ms: float
    queue_ms: float
    predict_ms: float = Field(description="of the whole batch")
    encode_ms: float
    total_ms: float


class Prediction(BaseModel):
    """What was found in a picture, best first."""

    model: str
    image: Size
    threshold: float
    instances: list[FoundInstance]
    timing: Timing


class ModelCard(BaseModel):
    """One loaded model."""

    name: str
    default: bool
    categories: list[str]
    threshold: float = Field(description="used where a request gives none")
    licence: str = Field(description="of the weights; empty if unknown")
    runtime: str
    device: str


class ModelList(BaseModel):
    """All loaded models, the default first."""

    models: list[ModelCard]


class Refusal(BaseModel):
    """Why there is no result."""

    error: str = Field(description="one line")
