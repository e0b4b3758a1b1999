"""What commands print of fitted models: coefficients, and what a statistician reads with them."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from secure_afl.analytic.coefficients import Fit
from secure_afl.evaluation.numeric import NumericFigures
from secure_afl.runs.fits import fit_table, numeric_lines


def show_fits(console: Console, fits: Sequence[Fit]) -> None:
    """Print each fit as a table, a line of figures, and its notes."""
    for fit in fits:
        laid = fit_table(fit)
        table = Table(*laid.head, title=laid.title, title_justify="left", min_width=len(laid.title))
        for column in table.columns[1:]:
            column.justify, column.overflow = "right", "fold"
        for cells in laid.rows:
            table.add_row(*cells)
        console.print(table)
        console.print(laid.figures, markup=False, highlight=False)
        for note in laid.notes:
            console.print(note, markup=False, highlight=False)


def show_numeric(console: Console, figures: NumericFigures, title: str) -> None:
    """Print how far predictions of a number are off, in its own unit."""
    table = Table("", f"{figures.examples:,} rows", title=title, title_justify="left")
    table.columns[1].justify = "right"
    for name, value in numeric_lines(figures).items():
        table.add_row(name, value)
    console.print(table)
    console.print("Ranges hold 95 %.", highlight=False)
