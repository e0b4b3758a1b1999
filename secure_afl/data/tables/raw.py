"""Tables as they lie in files: every cell a word, every row of one length."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secure_afl.data.mapping import composed, shorten
from secure_afl.errors import DataError
from secure_afl.texts import encoding_of

CSV, PARQUET = (".csv", ".tsv"), (".parquet", ".pq")
SUFFIXES = (*CSV, *PARQUET)
# What separates cells where a header has no comma; sheets in half of Europe write semicolons.
_OTHERS = (";", "\t", "|")
MAX_COLUMNS = 16_384


@dataclass(frozen=True, eq=False)
class RawTable:
    """A table of words.

    Attributes:
        where: what errors begin with: the file.
        columns: cells by the name of their column, all of one length; a missing one is empty.
        lines: number of the line in the file on which each row begins, or its place from 1.
    """

    where: str
    columns: Mapping[str, tuple[str, ...]] = field(repr=False)
    lines: tuple[int, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.lines)

    def cells(self, name: str) -> tuple[str, ...]:
        """Return the cells of a column.

        Raises:
            DataError: there is none of this name.
        """
        if name not in self.columns:
            raise DataError(
                f"{self.where} has no column {name!r}; it has {shorten(tuple(self.columns))}. Add "
                "it, or correct its name"
            )
        return self.columns[name]

    def line(self, row: int) -> str:
        """Say where a row, counted from 0, stands."""
        return f"{self.where}, line {self.lines[row]}"


def is_table(path: Path) -> bool:
    """Say whether a path has the suffix of a table that is read here."""
    return path.suffix.lower() in SUFFIXES


def read_table(path: Path) -> RawTable:
    """Read a CSV or Parquet file.

    A CSV file is UTF-8, or has a byte order mark; its first line names the columns; cells are
    separated by commas, or else by semicolons, tabs or bars, and may be quoted (RFC 4180).

    Raises:
        DataError: a file that cannot be read, another encoding, no header, names that are empty or
            there twice, or a row of another length; it names the line.
    """
    try:
        if path.suffix.lower() in PARQUET:
            return _read_parquet(path)
        return _read_csv(str(path), path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); check its permissions") from error


def table_of_frame(frame: Any, where: str) -> RawTable:
    """Take a pandas frame, or a mapping of names to cells.

    Raises:
        DataError: as `read_table`; rows are counted from 1.
    """
    names = [str(name) for name in frame]
    _check_names(where, names)
    columns = {
        name: tuple(_word(cell) for cell in frame[key])
        for name, key in zip(names, frame, strict=True)
    }
    lengths = {len(cells) for cells in columns.values()}
    if len(lengths) != 1:
        raise DataError(f"{where}: columns of {sorted(lengths)} cells; give all one length")
    return _checked(RawTable(where, columns, tuple(range(1, lengths.pop() + 1))))


def _read_csv(where: str, content: bytes) -> RawTable:
    try:
        text = content.decode(encoding_of(content))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{where}, line {line}, is not UTF-8; save the file as 'CSV UTF-8'"
        ) from None
    if "\0" in text:
        raise DataError(f"{where} holds bytes of 0, so it is no CSV file; export it anew")
    try:
        return _rows_of(where, text)
    except csv.Error as error:
        raise DataError(f"{where} is no CSV file ({error}); export it anew") from None


def _rows_of(where: str, text: str) -> RawTable:
    separator = _separator(where, text)
    # A quote that never closes swallows the rest of the file: strict reading refuses it.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    numbered = _numbered(reader)
    header = next((row for _, row in numbered), None)
    if header is None:
        raise DataError(f"{where} is empty; its first line has to name the columns")
    names = [composed(name.strip()) for name in header]
    _check_names(where, names)
    rows, lines = [], []
    for line, row in numbered:
        if len(row) != len(names):
            raise DataError(
                f"{where}, line {line}, has {len(row)} cells and the header {len(names)}; a cell "
                f"that holds {separator!r} has to be quoted"
            )
        rows.append(row)
        lines.append(line)
    columns = zip(*rows, strict=True) if rows else (() for _ in names)
    cells = {
        name: tuple(cell.strip() for cell in column)
        for name, column in zip(names, columns, strict=True)
    }
    return _checked(RawTable(where, cells, tuple(lines)))


def _numbered(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield rows that are not empty with the line on which each begins."""
    line = 1
    for row in reader:
        if row:
            yield line, row
        line = reader.line_num + 1


def _separator(where: str, text: str) -> str:
    """Return what separates the cells of the header."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    found = [separator for separator in _OTHERS if separator in header]
    if "," in header:
        # A header of both is one of quoted names, or a file of two formats.
        bare = "".join(header.split('"')[::2])
        found = [separator for separator in (",", *_OTHERS) if separator in bare]
        if len(found) > 1:
            raise DataError(
                f"{where}: the header has both {found[0]!r} and {found[1]!r}; quote names that "
                "hold one of them"
            )
    return found[0] if found else ","


def _read_parquet(path: Path) -> RawTable:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table as read_arrow
    except ImportError:
        raise DataError(
            f"{path} is a Parquet file, for which pyarrow is missing: pip install "
            "'secure-afl[tables]', or save it as CSV"
        ) from None
    try:
        table = read_arrow(path)
    except (ArrowException, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is no Parquet file ({reason}); export it anew") from None
    names = [composed(str(name).strip()) for name in table.column_names]
    _check_names(str(path), names)
    cells = {
        name: tuple(_word(cell) for cell in column.to_pylist())
        for name, column in zip(names, table.columns, strict=True)
    }
    return _checked(RawTable(str(path), cells, tuple(range(1, table.num_rows + 1))))


def _word(cell: Any) -> str:
    """Write a cell as a CSV file does; one that is missing is empty."""
    # The types are what pandas writes for a missing time or number.
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return ""
    if isinstance(cell, str):
        return cell.strip()
    if hasattr(cell, "item"):
        cell = cell.item()
    if isinstance(cell, float):
        return "" if math.isnan(cell) else repr(cell)
    return str(cell)


def _check_names(where: str, names: Iterable[str]) -> None:
    names = list(names)
    if not 1 <= len(names) <= MAX_COLUMNS:
        raise DataError(f"{where} has {len(names)} columns; allowed: 1..{MAX_COLUMNS}")
    for place, name in enumerate(names, 1):
        if not name:
            raise DataError(f"{where}: column {place} has no name; give it one in the header")
        if not name.isprintable():
            raise DataError(f"{where}: the name of column {place}, {name!r}, has a control letter")
        if names.index(name) < place - 1:
            raise DataError(f"{where} has the column {name!r} twice; rename one, or take it out")
    if all(_is_number(name) for name in names):
        raise DataError(
            f"{where}: the first line holds numbers ({shorten(names, 3)}) and no names; add a "
            "header"
        )


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _checked(table: RawTable) -> RawTable:
    if not table.lines:
        raise DataError(f"{table.where} has a header and no rows; at least 1 is needed")
    return table
