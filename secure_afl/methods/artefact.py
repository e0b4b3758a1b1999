"""A saved model as one artefact: tensors and card, bound by a digest and, with keys, signed.

The digest shows that neither was changed by itself. It is no secret: who changes both can compute
it anew. A signature under a key that the reader has pinned shows who made the model.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from safetensors.numpy import load_file

from protocols.codec import encode
from protocols.errors import BadSignature
from protocols.identity import Identity
from protocols.roster import Line, Roster
from secure_afl.errors import DataError

FORMAT_VERSION = 2
DIGEST, SIGNATURE = "digest", "signature"
# Not the wire's tag: models outlive the messages' version.
_TAG = f"secure-afl model {FORMAT_VERSION}"

Hex32 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Hex64 = Annotated[str, Meta(pattern="^[0-9a-f]{128}$")]


class Signature(msgspec.Struct, frozen=True):
    """A signature over the digest, by a party of the roster.

    Attributes:
        name, role: of the party.
        verify_key: its Ed25519 key, hex.
        value: the signature, hex.
    """

    name: str
    role: str
    verify_key: Hex32
    value: Hex64

    @property
    def line(self) -> Line:
        """The roster's line that this claims to be of."""
        return Line(self.name, self.role, bytes.fromhex(self.verify_key))


class Card(msgspec.Struct, frozen=True):
    """What every model's card has, beside what its maker says of it.

    Attributes:
        format_version: of the artefact.
        classes: names, in the order of the weights' columns.
        digest: SHA-256 over the tensors and all of the card but `digest` and `signature`, hex.
        signature: where there are keys.
    """

    format_version: int
    classes: tuple[str, ...]
    digest: Hex32
    signature: Signature | None = None


def bind(card: Mapping[str, Any], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the card as it is to be written: with the digest over both, and unsigned."""
    plain: dict[str, Any] = json.loads(json.dumps(_unbound(card)))
    return plain | {DIGEST: _digest(plain, tensors).hex()}


def check(path: Path, card: Mapping[str, Any], tensors: Mapping[str, Any]) -> Card:
    """Check that a card is of these tensors, and its signature if it has one.

    Raises:
        DataError: another format, a card or tensors that were changed, or a wrong signature.
        KeyError: a card without a format.
    """
    version = card["format_version"]
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path} has format {version}; this version reads {FORMAT_VERSION}: make the model anew"
        )
    try:
        found = msgspec.convert(card, Card)
    except msgspec.ValidationError as error:
        raise DataError(f"{path} is not a saved model with its card: {error}") from None
    digest = _digest(_unbound(card), tensors)
    if digest.hex() != found.digest:
        raise DataError(
            f"{path} and its card {path.with_suffix('.json').name} are not as they were saved: "
            "their digest differs. One of them was changed, or is another model's; copy both anew"
        )
    signature = found.signature
    if signature is not None:
        try:
            signature.line.verify(bytes.fromhex(signature.value), _signed(digest))
        except BadSignature:
            raise DataError(
                f"the signature of {path} is not '{signature.name}''s over this model; copy the "
                "model and its card anew from whoever made it"
            ) from None
    return found


def sign(path: Path, identity: Identity, role: str) -> None:
    """Sign a saved model, replacing its card.

    Args:
        identity: of the party that received the sum, or of the client of a personal model.
        role: that the roster names the party in.

    Raises:
        DataError: files that do not belong together.
    """
    card, tensors = read(path)
    check(path, card, tensors)
    value = identity.sign(_signed(bytes.fromhex(card[DIGEST]))).hex()
    signature = Signature(identity.name, role, identity.verify_key.hex(), value)
    write(path, card | {SIGNATURE: msgspec.to_builtins(signature)})


def check_signer(path: Path, card: Card, roster: Roster) -> Line:
    """Return the roster's line of whoever signed a model.

    Raises:
        DataError: the model is not signed, or not by a party as the roster pins it.
    """
    signature = card.signature
    if signature is None:
        raise DataError(
            f"{path} is not signed, and --keys asks for a signature; run with --keys, or leave it "
            "out"
        )
    pinned = roster.by_name.get(signature.name)
    if pinned != signature.line:
        raise DataError(
            f"{path} is signed by {signature.name} as {signature.role}, fingerprint "
            f"{signature.line.fingerprint}, which is not on the roster; ask them which key they use"
        )
    return signature.line


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the card and the tensors of a saved model; nothing of them is checked.

    Raises:
        OSError, SafetensorError, ValueError, TypeError: files that are no card and no tensors.
    """
    tensors = load_file(path)
    card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    if not isinstance(card, dict):
        raise TypeError(f"a card is an object, and no {type(card).__name__}")
    return card, tensors


def write(path: Path, card: Mapping[str, Any]) -> None:
    """Write a card beside its model."""
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    path.with_suffix(".json").write_text(text, encoding="utf-8", newline="\n")


def _unbound(card: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in card.items() if name not in (DIGEST, SIGNATURE)}


def _digest(card: Mapping[str, Any], tensors: Mapping[str, Any]) -> bytes:
    text = json.dumps(card, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    hashed = hashlib.sha256(encode((f"{_TAG} digest", text)))
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        hashed.update(encode((name, array.dtype.str, list(array.shape))))
        hashed.update(array.reshape(-1).view(np.uint8).data)
    return hashed.digest()


def _signed(digest: bytes) -> bytes:
    return encode((f"{_TAG} signature", digest))
