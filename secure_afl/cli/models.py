"""`secure-afl evaluate` and `secure-afl predict`: saved models at work."""

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secure_afl.cli.console import people, progress
from secure_afl.cli.options import JsonFile, run_settings, with_flags

if TYPE_CHECKING:
    from secure_afl.analytic.priors import Prior
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

PriorFlag = Annotated[
    str | None,
    typer.Option(
        metavar="observed|uniform|FILE",
        help="Class shares to count on: as in the sum, all alike, or a JSON file {class: share}. "
        "Default: those in the card.",
    ),
]


@with_flags(lambda: run_settings("checkpoint", "mapping", "id"))
def evaluate(
    model: _Model,
    path: Annotated[
        str, typer.Argument(metavar="DATA", help="A folder <class>/<image>, .npz, or table.")
    ],
    split: Annotated[str, typer.Option(help="Which split of a MedMNIST .npz.")] = "test",
    keys: _Keys = None,
    prior: PriorFlag = None,
    sensitive_to: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS",
            help="Predict this class where its score passes a threshold, which one half of the "
            "examples chooses for --sensitivity; the figures are of the other half.",
        ),
    ] = None,
    sensitivity: Annotated[
        float | None, typer.Option(help="For --sensitive-to; default 0.95.", min=0.01, max=1)
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the figures as one HTML page.")
    ] = None,
    json_file: JsonFile = None,
    **settings: Any,
) -> None:
    """Score a saved model on labelled data, with the backbone that its card names."""
    from secure_afl.cli.fits import show_numeric
    from secure_afl.cli.tables import check_writable, show_figures, write_json
    from secure_afl.data.mapping import read_mapping
    from secure_afl.errors import ConfigError
    from secure_afl.runs import inference
    from secure_afl.runs.page.write import write_evaluation

    check_writable(json_file)
    check_writable(None if html is None else str(html))
    if sensitivity is not None and sensitive_to is None:
        raise ConfigError("--sensitivity has no effect without --sensitive-to; leave it out")
    mapping = settings.pop("mapping", None)
    names = None if mapping is None else read_mapping(Path(mapping))
    id = settings.pop("id", None)
    with progress() as advance:
        saved = _load(model, keys, **settings)
        if html is not None and saved.model.numeric:
            raise ConfigError("--html has no page for a number's figures; leave it out")
        result = inference.evaluate(
            saved,
            path,
            split,
            advance,
            names,
            id,
            prior=_prior(prior),
            sensitive_to=sensitive_to,
            sensitivity=0.95 if sensitivity is None else sensitivity,
        )
    if result.numeric is not None:
        show_numeric(people(json_file), result.numeric, f"{model} on {path}")
    else:
        show_figures(result.results, people(json_file), f"{model} on {path}")
    write_json(json_file, result)
    if html is not None:
        write_evaluation(html, result.results, model, path, dict(saved.about))


@with_flags(lambda: run_settings("checkpoint"))
def predict(
    model: _Model,
    path: Annotated[
        str,
        typer.Argument(metavar="DATA", help="An image, a folder of images, an .npz, or a table."),
    ],
    split: Annotated[str, typer.Option(help="Which split of a MedMNIST .npz.")] = "test",
    keys: _Keys = None,
    prior: PriorFlag = None,
    **settings: Any,
) -> None:
    """Print each example's class and the scores of all classes, or its number, as CSV.

    `score` is the probability of the class, for models that have calibrated probabilities; columns
    p:CLASS are those of all classes, and columns s:CLASS scores that do not grow with an example's
    brightness. A table's row that the model's dictionary leaves out, for a value is missing, has
    its number under `example` and nothing else.
    """
    from secure_afl.runs import inference

    with progress() as advance:
        saved = _load(model, keys, **settings)
        predictions = list(inference.predict(saved, path, split, advance, _prior(prior)))
    classes = saved.model.classes
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if saved.model.numeric:
        writer.writerow(["example", classes[0]])
        # All digits: a target's own unit may be of any size.
        writer.writerows(
            [found.example, "" if found.score is None else repr(found.score)]
            for found in predictions
        )
        return
    shares = [f"p:{name}" for name in classes] if saved.model.has_probabilities else []
    writer.writerow(["example", "class", "score", *shares, *(f"s:{name}" for name in classes)])
    for prediction in predictions:
        if prediction.score is None:
            writer.writerow([prediction.example, *[""] * (2 + len(shares) + len(classes))])
            continue
        numbers = [prediction.score, *(prediction.probabilities or ()), *prediction.scores]
        writer.writerow([prediction.example, prediction.predicted, *(f"{n:.4f}" for n in numbers)])


def _prior(text: str | None) -> "Prior | None":
    from secure_afl.analytic.priors import read_prior

    return None if text is None else read_prior(text)


def _load(model: Path, keys: Path | None, checkpoint: str | None = None) -> "SavedModel":
    from secure_afl.federation.keys import load_roster
    from secure_afl.runs.inference import load_model

    roster = None if keys is None else load_roster(keys)
    return load_model(model, None if checkpoint is None else Path(checkpoint), roster)
