"""Settings of convolutional layers that come from sums: flags, keys of run.toml, ranges."""

from typing import Annotated, TypeAlias

from msgspec import Meta

MAX_LAYERS, MAX_KERNEL, MAX_FILTERS, MAX_REGIONS, MAX_LAYER_BITS = 4, 15, 512, 16, 8

Filters: TypeAlias = Annotated[
    str | None,
    Meta(
        description="what filters are made of: canonical (directions in which patches tell class "
        "and region apart best), code (least squares onto a random code of these), or random (of "
        "the seed alone; one sum in all). Default: canonical, and random with --epsilon.",
        extra={"metavar": "canonical|code|random"},
    ),
]
Kernel: TypeAlias = Annotated[
    Annotated[int, Meta(ge=1, le=MAX_KERNEL)] | None,
    Meta(
        description="side of a filter, odd. Default: 5, and 3 for images below 16 pixels a side.",
        extra={"metavar": "N"},
    ),
]
FilterCount: TypeAlias = Annotated[
    Annotated[int, Meta(ge=1, le=MAX_FILTERS)] | None,
    Meta(
        description="filters of a layer; of canonical ones no more than there are directions. "
        "Default: 32, and 16 for images below 16 pixels a side.",
        extra={"metavar": "N"},
    ),
]
Layers: TypeAlias = Annotated[
    int,
    Meta(ge=1, le=MAX_LAYERS, description="convolutional layers.", extra={"metavar": "N"}),
]
Regions: TypeAlias = Annotated[
    int,
    Meta(
        ge=1,
        le=MAX_REGIONS,
        description="parts of an image each way, N × N: filters tell them apart, and the head "
        "averages over each.",
        extra={"metavar": "N"},
    ),
]
LayerBits: TypeAlias = Annotated[
    int,
    Meta(
        ge=1,
        le=MAX_LAYER_BITS,
        description="an image's deviation is 2^N whole numbers in the layers' sums.",
        extra={"metavar": "N"},
    ),
]
FilterRidge: TypeAlias = Annotated[
    float,
    Meta(
        ge=1e-9,
        le=1e9,
        description="ν of the filters' least squares, in units of the patches' mean variance.",
        extra={"metavar": "ν"},
    ),
]
