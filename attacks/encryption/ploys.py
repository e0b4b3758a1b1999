"""Attacks on sums under CKKS, each for one client's vector, the victim's.

Every ploy is against a session of `ckks` with its real parties; `lies` is what the
coalition says instead of what it should, `read` what it makes of its view afterwards. Against a
naive key holder each yields the victim's vector to the last bit. With `verify=False` two of them
still do: rounding stops key recovery, and the refusal of what is not integers the other two. In a
verified session the key holder refuses all lies.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from attacks.encryption.polynomials import (
    Pair,
    decrypt,
    key_from_sum,
    modulus,
    polynomial,
    put_together,
    take_apart,
)
from attacks.views.lies import Lie
from attacks.views.view import View
from protocols.codec import decode
from protocols.layout import Integers
from protocols.schemes.encrypted.chunks import chunk_seed
from protocols.schemes.encrypted.messages import (
    KEY,
    KEY_HOLDER,
    SERVER,
    TOTAL,
    UPLOAD,
    Ciphertexts,
    Key,
    Total,
    Voucher,
    ciphertext_digest,
)
from protocols.schemes.encrypted.parameters import find_parameters
from protocols.schemes.encrypted.protocol import Ckks
from protocols.schemes.encrypted.seal import Ring, Slots
from protocols.session import Session
from protocols.uploads import Upload, Uploads

# A lying client's own seed, for what of its upload it does not lie about.
_SEED = bytes(32)


@dataclass(frozen=True)
class Ploy:
    """One way to the victim's vector.

    Attributes:
        name: as in reports.
        coalition: who works together, by name.
        lies: what they say instead; empty for those who only look.
        read: the victim's vector as the coalition has it in the end, or None.
    """

    name: str
    coalition: tuple[str, ...]
    lies: tuple[Lie, ...]
    read: Callable[[View], Integers | None]


def relabelled_upload(session: Session, victim: str) -> Ploy:
    """Make the ploy in which the server passes one upload off as the sum."""

    def say(view: View) -> Total:
        return Total(_listed(view), _uploaded(view)[victim])

    return Ploy("relabelled upload", (SERVER,), (_lying_server(say),), _released)


def chosen_ciphertext(session: Session, victim: str) -> Ploy:
    """Make the ploy in which the server asks for the decryption of (0, w).

    The decryption is w·s, which tells the key; w = 2^10·scale.

    Wants a layout whose bounds hold ± 2^20 and at least N entries.
    """
    weight = 2**10

    def say(view: View) -> Total:
        ring, uploaded = _ring(session), _uploaded(view)
        word = round(weight * ring.parameters.scale)
        degree = ring.parameters.degree
        query = put_together(ring, Pair([0] * degree, [word] * degree))
        return Total(_listed(view), (query, *uploaded[victim][1:]))

    def read(view: View) -> Integers | None:
        return _open_with_key_image(view, victim, weight)

    return Ploy("chosen ciphertext", (SERVER,), (_lying_server(say),), read)


def malicious_addend(session: Session, client: str, victim: str) -> Ploy:
    """Make the ploy in which a client adds (0, w) to its own upload.

    The released sum then carries w·s.

    The server does its work, and shares what it has seen. Wants N entries, and sums that are small
    beside w = 2^14 and bounds that hold 2^14 times the key's largest slot, about 2^8.
    """
    weight = 2**14

    def say_ciphertexts(view: View) -> Ciphertexts:
        ring = _ring(session)
        public_key = ring.load_public_key(_public_key(view, client))
        seeds = _seeds(session, client)
        zeros = [ring.encrypt(public_key, seed) for seed in seeds]
        pair = take_apart(ring, ring.save(zeros[0]))
        word, q = round(weight * ring.parameters.scale), modulus(ring)
        bent = put_together(ring, Pair(pair.first, [(b + word) % q for b in pair.second]))
        return Ciphertexts((bent, *(ring.save(zero) for zero in zeros[1:])))

    lies = _lying_client(client, say_ciphertexts)

    def read(view: View) -> Integers | None:
        return _open_with_key_image(view, victim, weight)

    return Ploy("malicious addend", (client, SERVER), lies, read)


def rushing_client(session: Session, client: str, victim: str) -> Ploy:
    """Make the ploy of a client that speaks last and cancels others' uploads.

    The client is shown the others' uploads, and cancels all but the victim's.
    """

    def say_ciphertexts(view: View) -> Ciphertexts:
        ring = _ring(session)
        public_key = ring.load_public_key(_public_key(view, client))
        chunks = []
        for index, seed in enumerate(_seeds(session, client)):
            total = ring.encrypt(public_key, seed)
            for name, uploaded in _uploaded(view).items():
                if name not in (client, victim):
                    addend = ring.load(uploaded[index])
                    ring.evaluator.sub_inplace(total, addend)
            chunks.append(ring.save(total))
        return Ciphertexts(tuple(chunks))

    lies = _lying_client(client, say_ciphertexts)
    return Ploy("rushing client", (client, SERVER), lies, _released)


def key_recovery(
    session: Session, victim: str, published: Callable[[], Slots] | None = None
) -> Ploy:
    """Make the ploy in which the server solves c0 + c1·s = m for s.

    The server follows the protocol (Li and Micciancio 2021).

    Args:
        published: the sum as a naive deployment publishes it, not rounded; without it, the sum that
            was released.
    """

    def read(view: View) -> Integers | None:
        ring = _ring(session)
        degree = ring.parameters.degree
        if published is not None:
            entries = published()
        elif view.released is not None:
            entries = view.released.total.astype(np.float64)
        else:
            return None
        summed = None
        for chunks in _uploaded(view).values():
            addend = ring.load(chunks[0])
            if summed is None:
                summed = addend
            else:
                ring.add(summed, addend)
        pair = take_apart(ring, ring.save(summed))
        message = polynomial(ring, entries[:degree], ring.parameters.scale)
        key = key_from_sum(pair, message, modulus(ring))
        return None if key is None else _open(view, victim, key)

    return Ploy("key recovery", (SERVER,), (), read)


def _released(view: View) -> Integers | None:
    return None if view.released is None else view.released.total


def _open_with_key_image(view: View, victim: str, weight: int) -> Integers | None:
    """Open with the integer polynomial nearest to the released slots over the weight as key."""
    if view.released is None:
        return None
    ring = _ring(view.session)
    image = view.released.total[: ring.parameters.degree] / weight
    return _open(view, victim, polynomial(ring, image, 1.0))


def _open(view: View, victim: str, key: Sequence[int]) -> Integers:
    ring = _ring(view.session)
    slots = [decrypt(ring, list(key), chunk) for chunk in _uploaded(view)[victim]]
    entries = np.concatenate(slots)[: view.session.layout.length]
    return np.rint(entries).astype(np.int64)


def _lying_server(say: Callable[[View], Total]) -> Lie:
    return Lie(SERVER, KEY_HOLDER, TOTAL, say)


def _lying_client(client: str, say: Callable[[View], Ciphertexts]) -> tuple[Lie, Lie]:
    """Make both messages of a client's step: the ciphertexts, and a voucher that fits them."""

    def vouch(view: View) -> Voucher:
        # The same ciphertexts again: they are made of what was there before this client spoke.
        digest = ciphertext_digest(view.session, client, say(view).chunks)
        verify = decode(view.session.parameters, Ckks).verify
        return Voucher(digest, _SEED if verify else b"")

    return Lie(client, SERVER, UPLOAD, say), Lie(client, KEY_HOLDER, UPLOAD, vouch)


def _seeds(session: Session, client: str) -> list[bytes]:
    """Derive the seeds that a client's own seed would have its chunks encrypted with."""
    chunks = _ring(session).parameters.chunks(session.layout.length)
    return [chunk_seed(session, _SEED, client, index) for index in range(chunks)]


def _ring(session: Session) -> Ring:
    return Ring(find_parameters(session.layout, len(session.clients)))


def _public_key(view: View, client: str) -> bytes:
    return view.contents(client, KEY, Key)[KEY_HOLDER].public_key


def _uploaded(view: View) -> dict[str, tuple[bytes, ...]]:
    uploads = view.contents(SERVER, UPLOAD, Ciphertexts)
    return {client: upload.chunks for client, upload in uploads.items()}


def _listed(view: View) -> Uploads:
    """Return the list that an honest server would give."""
    session = view.session
    uploads = (
        Upload(client, ciphertext_digest(session, client, chunks))
        for client, chunks in _uploaded(view).items()
    )
    return Uploads.of(session, uploads)
