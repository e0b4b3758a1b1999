"""The features of a table's rows, which its design has made already."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_afl.analytic.rows import ClientData
from secure_afl.data.account import account, read
from secure_afl.data.dataset import Dataset
from secure_afl.data.tables.design import Design
from secure_afl.data.tables.raw import table_of_frame
from secure_afl.errors import DataError
from secure_afl.features.backbone import Backbone
from secure_afl.features.cache import FeatureCache
from secure_afl.progress import Progress

TABLE = "table"


@dataclass(frozen=True)
class TableRows:
    """A front that passes on what a design made.

    Attributes:
        design: of the rows.
    """

    design: Design

    @property
    def digest(self) -> bytes:
        """SHA-256, 32 bytes, over all that changes the rows."""
        return self.design.digest

    @property
    def width(self) -> int:
        """Number of a row's features."""
        return len(self.design.columns.columns)

    def extract(
        self, dataset: Dataset, cache: FeatureCache | None, progress: Progress | None
    ) -> NDArray[np.float64]:
        """Return the rows of a dataset, (n, d) float64.

        Raises:
            DataError: a dataset that no design made, or another one.
        """
        examples = dataset.examples
        if isinstance(examples, tuple) or dataset.width != self.width:
            raise DataError(
                f"{dataset.name} is no table of this dictionary, whose rows have {self.width} "
                "features; give a CSV or Parquet file"
            )
        return np.asarray(examples, dtype=np.float64)


def table_backbone(design: Design) -> Backbone:
    """Make the backbone of a table's rows; its spec is `table`."""
    return Backbone(TABLE, TableRows(design), None)


def design_behind(backbone: Backbone) -> Design | None:
    """Return the design of a backbone that `table_backbone` made; None for others."""
    return backbone.front.design if isinstance(backbone.front, TableRows) else None


def table_rows(dataset: Dataset, design: Design) -> ClientData:
    """Return the rows of a table, as a federation takes them.

    Raises:
        DataError: a dataset that no design made, or another one.
    """
    features = TableRows(design).extract(dataset, None, None)
    return ClientData.of(dataset, features)


def frame_rows(name: str, frame: Any, design: Design) -> ClientData:
    """Return the rows of a pandas frame, or of a mapping of names to cells, as a client's.

    Each thing about them that is doubtful or wrong is one UserWarning, with its count: values out
    of range, rows left out, columns that are not read.

    Raises:
        DataError: a column that is missing, or a cell that is none of its column's values; rows
            are counted from 1.
    """
    dataset = design.dataset(name, table_of_frame(frame, f"client '{name}'"))
    for finding in account(read(dataset)).findings:
        if finding.rank != "note":
            warnings.warn(f"{finding.what}. {finding.fix.capitalize()}.", stacklevel=2)
    return table_rows(dataset, design)
