"""`secure-afl evaluate` and `secure-afl predict`: saved models at work."""

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secure_afl.cli.console import people, progress
from secure_afl.cli.options import JsonFile, run_settings, with_flags

if TYPE_CHECKING:
    from secure_afl.runs.inference import SavedModel


_Model = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="A saved model.safetensors, or the folder of run --out."),
]


_Keys = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Folder with roster.json: only a model that its parties signed."
    ),
]


@with_flags(lambda: run_settings("checkpoint", "mapping"))
def evaluate(
    model: _Model,
    path: Annotated[str, typer.Argument(metavar="DATA", help="A folder <class>/<image>, or .npz.")],
    split: Annotated[str, typer.Option(help="Which split of a MedMNIST .npz.")] = "test",
    keys: _Keys = None,
    json_file: JsonFile = None,
    **settings: Any,
) -> None:
    """Score a saved model on labelled data, with the backbone that its card names."""
    from rich.table import Table

    from secure_afl.cli.tables import check_writable, percent, write_json
    from secure_afl.data.mapping import read_mapping
    from secure_afl.runs import inference

    check_writable(json_file)
    mapping = settings.pop("mapping", None)
    names = read_mapping(None if mapping is None else Path(mapping))
    with progress() as advance:
        saved = _load(model, keys, **settings)
        result = inference.evaluate(saved, path, split, advance, names)
    table = Table("class", "accuracy", title=f"{model} on {path}", title_justify="left")
    for name, share in result.per_class.items():
        table.add_row(name, percent(share))
    table.add_row("all", f"{percent(result.accuracy)} of {result.examples:,}", style="bold")
    people(json_file).print(table)
    write_json(json_file, result)


@with_flags(lambda: run_settings("checkpoint"))
def predict(
    model: _Model,
    path: Annotated[
        str, typer.Argument(metavar="DATA", help="An image, a folder of images, or an .npz.")
    ],
    split: Annotated[str, typer.Option(help="Which split of a MedMNIST .npz.")] = "test",
    keys: _Keys = None,
    **settings: Any,
) -> None:
    """Print the predicted class of each example, and its score, as CSV."""
    from secure_afl.runs import inference

    with progress() as advance:
        saved = _load(model, keys, **settings)
        predictions = list(inference.predict(saved, path, split, advance))
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["example", "class", "score"])
    for prediction in predictions:
        writer.writerow([prediction.example, prediction.predicted, f"{prediction.score:.4f}"])


def _load(model: Path, keys: Path | None, checkpoint: str | None = None) -> "SavedModel":
    from secure_afl.federation.keys import load_roster
    from secure_afl.runs.inference import load_model

    roster = None if keys is None else load_roster(keys)
    return load_model(model, None if checkpoint is None else Path(checkpoint), roster)
