"""Federations over frames in Python, by a design."""

from typing import Any

from protocols.protocol import Protocol
from secure_afl.data.tables.design import Design
from secure_afl.features.table import table_backbone
from secure_afl.federation.simulation import Federation
from secure_afl.methods.method import AnyMethod
from secure_afl.runs.tables import check_outcome


def table_federation(
    design: Design, method: AnyMethod, protocol: Protocol, **settings: Any
) -> Federation:
    """Make a simulated federation over rows of tables, as `frame_rows` makes them.

    Its `run` wants `classes=design.classes`.

    Args:
        settings: further ones, as `Federation` takes them.

    Raises:
        ConfigError: a method that cannot learn what the target is.
    """
    check_outcome(method, design)
    return Federation(
        method,
        protocol,
        columns=design.columns,
        row_mode="columns",
        backbone=table_backbone(design).digest,
        **settings,
    )
