"""What is remembered of a network, so that a cached run builds none.

That is its digest and its width. Both follow from what the key hashes: the settings, every byte of
the checkpoint, and the versions of what builds the network. A network whose weights are downloaded
is not remembered, for nobody knows what the hub has today, nor is one whose architecture the hub
describes.

The digest is how parties know that all of them have one backbone, and the features' key in the
cache. A record that lies must not put another network's rows under it. So a network that is built
after all is compared with the record, and rows are stored under the digest of the network that made
them: a wrong digest finds rows of the network that it names, or none, and then it is found out.
"""

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from protocols.codec import domain_tag, encode

# Another number whenever the digest of a network is made of something else.
_FORMAT = 1
_BUILDERS = ("timm", "torch", "torchvision")


class Remembered(NamedTuple):
    """What is known of a network without building it.

    Attributes:
        digest: SHA-256 over weights, architecture and preprocessing, 32 bytes.
        width: features of a row, ≥ 1.
    """

    digest: bytes
    width: int


def network_key(
    settings: str, checkpoint: Path | None, image_size: int | None, seed: int
) -> bytes | None:
    """Hash all that a network's digest follows from, 32 bytes; None where something is missing.

    Args:
        settings: `<model>[,<key>=<value>…]`.
        checkpoint: local weights, which are read whole.
    """
    name = settings.partition(",")[0]
    if checkpoint is None or "/" in name or ":" in name:
        return None
    try:
        versions = [version(package) for package in _BUILDERS]
        with checkpoint.open("rb") as file:
            weights = hashlib.file_digest(file, "sha256").digest()
    except (OSError, PackageNotFoundError):
        return None  # whoever builds the network says what is wrong
    # Of two kinds of file that hold the same bytes one is read in another way.
    made_of = _FORMAT, settings, image_size, seed, weights, checkpoint.suffix, versions
    return hashlib.sha256(encode((domain_tag("network"), *made_of))).digest()
