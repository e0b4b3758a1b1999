"""Train a decoder of features on public images and save it.

python -m attacks.features.train 'public/*' --backbone timm:resnet18 --out decoder.safetensors
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import Progress

from attacks.features.decoder import Recipe, train_decoder
from protocols.errors import ProtocolError
from secure_afl.data import files as data_files
from secure_afl.data.dataset import Dataset, Examples
from secure_afl.errors import DataError, SecureAflError
from secure_afl.features.backbone import parse_backbone
from secure_afl.runs.saving import check_folder


def public_images(patterns: Sequence[str]) -> Dataset:
    """Return all images that the patterns match, as one data set.

    Their labels are not used.

    Args:
        patterns: globs of image folders (<class>/*.jpg|png) or .npz files.

    Raises:
        DataError: nothing matches, or what does holds features, or images of several kinds.
    """
    found = [dataset for pattern in patterns for dataset in data_files.load_clients(pattern)]
    for dataset in found:
        if not dataset.holds_images:
            raise DataError(f"{dataset.name} holds features; a decoder is trained on images")
    files: list[Path] = []
    arrays: list[NDArray[np.uint8]] = []
    for dataset in found:
        if isinstance(dataset.examples, tuple):
            files += dataset.examples
        else:
            arrays.append(np.asarray(dataset.examples, dtype=np.uint8))
    if (files and arrays) or len({array.shape[1:] for array in arrays}) > 1:
        raise DataError(
            "the public images are of several sizes, or partly files and partly arrays; give "
            "patterns that match one kind"
        )
    examples: Examples = tuple(files) if files else np.concatenate(arrays)
    labels = np.zeros(len(examples), dtype=np.int64)
    return Dataset(", ".join(Path(pattern).name for pattern in patterns), examples, labels, ("?",))


def main(
    patterns: Annotated[
        list[str],
        typer.Argument(metavar="GLOB…", help="Public images: quoted globs of folders or .npz."),
    ],
    backbone: Annotated[str, typer.Option(metavar="SPEC", help="As that of the attacked run.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The decoder, .safetensors.")],
    checkpoint: Annotated[Path | None, typer.Option(metavar="FILE")] = None,
    image_size: Annotated[int | None, typer.Option(metavar="N", min=8, max=4096)] = None,
    side: Annotated[int, typer.Option(metavar="N", help="16, 32, 64 or 128 pixels.")] = 64,
    steps: Annotated[int, typer.Option(metavar="N")] = Recipe().steps,
    copies: Annotated[int, typer.Option(metavar="N")] = Recipe().copies,
    seed: Annotated[int, typer.Option(metavar="N")] = 0,
) -> None:
    """Train a decoder from a frozen backbone's features to images, on public images only."""
    try:
        recipe = Recipe(side=side, steps=steps, copies=copies, seed=seed)
        check_folder(out.absolute().parent)
        public = public_images(patterns)
        frozen = parse_backbone(backbone, checkpoint, image_size, seed=0)
        with Progress(transient=True) as bar:
            task = bar.add_task("training", total=recipe.steps)
            decoder = train_decoder(
                frozen, public, recipe, lambda done, _: bar.update(task, completed=done)
            )
        decoder.save(out)
    except (SecureAflError, ProtocolError, OSError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from None
    card = msgspec.json.format(msgspec.json.encode(decoder.card)).decode()
    typer.echo(f"{out}\ndigest {decoder.digest.hex()}\n{card}")


if __name__ == "__main__":
    typer.run(main)
