"""What a coalition's records open under `ckks` and `bfv`.

The key holder's secret makes the session's keys again; a client's secret, its encryptions.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from attacks.views.opened import Openings, centred, colluders, coordinators, opens
from attacks.views.view import View
from protocols.layout import Integers
from protocols.schemes.encrypted import chunks as ckks_chunks
from protocols.schemes.encrypted import client as ckks_client
from protocols.schemes.encrypted import key_holder as ckks_key_holder
from protocols.schemes.encrypted import messages as ckks_messages
from protocols.schemes.encrypted.parameters import BFV, CKKS
from protocols.schemes.encrypted.party import parameters_of
from protocols.schemes.encrypted.seal import SEED_BYTES, KeyPair, Ring, from_entries

# Enough for a test of uniformity; taking a ciphertext apart word by word is slow.
_SAMPLED_CHUNKS = 4


@opens(CKKS, BFV)
def open_encrypted(view: View) -> Openings:
    """Open a view of a session under this scheme."""
    session = view.session
    found = Openings()
    parameters = parameters_of(session)
    ring = Ring(parameters)
    for name in colluders(view):
        state = view.held(name, ckks_client.EncryptingClient, ckks_client.Uploading)
        if state is not None:
            said = view.said(name, ckks_messages.UPLOAD, ckks_messages.Ciphertexts, [state.server])
            for upload in said.values():
                chunks = _without_zeros(view, ring, name, state, upload.chunks)
                found.own[name] = _decrypted(view, ring, _own_keys(ring), chunks)
    for server in coordinators(view, ckks_messages.SERVER):
        keys = _session_keys(view, ring)
        for name, upload in view.contents(
            server, ckks_messages.UPLOAD, ckks_messages.Ciphertexts
        ).items():
            if keys is None:
                found.left[name] = _low_bytes(ring, upload.chunks[:_SAMPLED_CHUNKS])
                continue
            chunks = map(ring.load, upload.chunks)
            vector = _decrypted(view, ring, keys, chunks)
            found.left[name] = session.layout.pack(session.layout.embed(vector))
            found.sums[frozenset({name})] = vector
    return found


def _session_keys(view: View, ring: Ring) -> KeyPair | None:
    for holder in coordinators(view, ckks_messages.KEY_HOLDER):
        state = view.held(holder, ckks_key_holder.KeyHolder, ckks_key_holder.Vouching)
        if state is not None:
            return ckks_chunks.session_keys(view.session, ring, state.secret, holder)
    return None


def _decrypted(view: View, ring: Ring, keys: KeyPair, chunks: Iterable[Any]) -> Integers:
    layout = view.session.layout
    slots = np.concatenate([ring.decrypt(keys.secret_key, chunk) for chunk in chunks])
    entries = np.rint(slots[: layout.length * ring.parameters.limbs]).astype(np.int64)
    return centred(layout, from_entries(ring.parameters, layout, entries))


def _own_keys(ring: Ring) -> KeyPair:
    """Make any key pair, to read what is no longer encrypted."""
    return KeyPair(ring, bytes(SEED_BYTES), bytes(SEED_BYTES))


def _without_zeros(
    view: View, ring: Ring, client: str, state: ckks_client.Uploading, chunks: Iterable[bytes]
) -> Iterable[Any]:
    """Return a client's ciphertexts less the encryptions of zero: the plaintexts.

    The zeros are those under the clients' seeds.

    SEAL refuses what is not encrypted, so that an encryption under keys of one's own goes on top.
    """
    seed = ckks_chunks.encryption_seed(view.session, state.secret, client)
    public_key, own = ring.load_public_key(state.public_key), _own_keys(ring).public_key
    for index, chunk in enumerate(chunks):
        ciphertext = ring.load(chunk)
        ring.add(ciphertext, ring.encrypt(own, bytes(SEED_BYTES)))
        zero = ring.encrypt(public_key, ckks_chunks.chunk_seed(view.session, seed, client, index))
        ring.evaluator.sub_inplace(ciphertext, zero)
        yield ciphertext


def _low_bytes(ring: Ring, chunks: Iterable[bytes]) -> bytes:
    """Return the words' low four bytes.

    Of words modulo a prime of 54 bits or more they are uniform.
    """
    low = []
    for chunk in chunks:
        ciphertext = ring.load(chunk)
        words = [ciphertext[index] for index in range(2 * ring.parameters.degree)]
        low.append((np.array(words, dtype=np.uint64) & np.uint64(2**32 - 1)).astype("<u4"))
    return b"".join(part.tobytes() for part in low)
