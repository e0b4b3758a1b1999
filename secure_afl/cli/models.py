"""`secure-afl evaluate` and `secure-afl predict`: saved models at work."""

import csv
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from secure_afl.cli.main import app
from secure_afl.cli.options import JsonFile, _flag
from secure_afl.cli.tables import (
    _check_writable,
    _features,
    _people,
    _percent,
    _progress,
    _write_json,
)
from secure_afl.runs import inference


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved model.safetensors.")],
    path: Annotated[str, typer.Argument(metavar="DATA", help="A folder <class>/*.jpg or .npz.")],
    checkpoint: Annotated[Path | None, _flag("checkpoint", "FILE")] = None,
    split: Annotated[str, typer.Option(help="Which split of a MedMNIST .npz.")] = "test",
    json_file: JsonFile = None,
) -> None:
    """Score a saved model on labelled data, with the backbone that its card names."""
    _check_writable(json_file)
    with _progress() as advance:
        saved = inference.load_model(model, checkpoint)
        result = inference.evaluate(saved, path, split, _features(advance))
    table = Table("class", "accuracy", title=f"{model} on {path}", title_justify="left")
    for name, share in result.per_class.items():
        table.add_row(name, _percent(share))
    table.add_row("all", f"{_percent(result.accuracy)} of {result.examples:,}", style="bold")
    _people(json_file).print(table)
    _write_json(json_file, result)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved model.safetensors.")],
    path: Annotated[
        str, typer.Argument(metavar="DATA", help="An image, a folder of images, or an .npz.")
    ],
    checkpoint: Annotated[Path | None, _flag("checkpoint", "FILE")] = None,
    split: Annotated[str, typer.Option(help="Which split of a MedMNIST .npz.")] = "test",
) -> None:
    """Print the predicted class of each example, and its score, as CSV."""
    with _progress() as advance:
        saved = inference.load_model(model, checkpoint)
        predictions = list(inference.predict(saved, path, split, _features(advance)))
    writer = csv.writer(sys.stdout)
    writer.writerow(["example", "class", "score"])
    for prediction in predictions:
        writer.writerow([prediction.example, prediction.predicted, f"{prediction.score:.4f}"])
