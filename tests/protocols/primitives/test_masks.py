"""Masks: the key stream of AES-CTR, whatever the length, the ring and the pieces."""

from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.primitives import masks as masks_module
from protocols.primitives.masks import (
    Mask,
    MaskStream,
    add_mask,
    add_masks,
    add_masks_in_threads,
)

WORDS = [np.uint32, np.uint64]
# AES of the zero block under the zero key (NIST CAVP, KAT): where the counter starts at zero.
ZERO_BLOCK = {
    16: "66e94bd4ef8a2c3b884cfa59ca342b2e",
    32: "dc95c078a2408989ad48a21492842087",
}


def key_stream(key: bytes, length: int, word: Any) -> Any:
    """The mask, from the cipher alone and in one piece."""
    cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    stream = cipher.update(bytes(length * np.dtype(word).itemsize))
    return np.frombuffer(stream, dtype=np.dtype(word).newbyteorder("<"))


@pytest.mark.parametrize("key_bytes", ZERO_BLOCK)
@pytest.mark.parametrize("word", WORDS)
def test_the_first_block_is_the_published_one(word: Any, key_bytes: int) -> None:
    vector = np.zeros(16 // np.dtype(word).itemsize, dtype=word)
    add_mask(vector, bytes(key_bytes))
    assert vector.astype(vector.dtype.newbyteorder("<")).tobytes().hex() == ZERO_BLOCK[key_bytes]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("length", [0, 1, 3, 16383, 16384, 16385, 32768, 32769, 100_001])
def test_the_mask_is_one_key_stream_across_all_pieces(word: Any, length: int) -> None:
    key = bytes(range(32))
    vector = np.arange(length, dtype=word) * word(2_654_435_761)
    expected = vector + key_stream(key, length, word)
    assert vector.dtype == word
    add_mask(vector, key)
    assert np.array_equal(vector, expected)


@settings(max_examples=40, deadline=None)
@given(
    key=st.binary(min_size=32, max_size=32),
    length=st.integers(1, 40_000),
    word=st.sampled_from(WORDS),
    seed=st.integers(0, 2**32 - 1),
)
def test_subtracting_undoes_adding(key: bytes, length: int, word: Any, seed: int) -> None:
    original = np.random.default_rng(seed).integers(0, np.iinfo(word).max, length, dtype=word)
    vector = original.copy()
    add_mask(vector, key)
    assert length < 4 or not np.array_equal(vector, original)
    add_masks(vector, [Mask(key, negative=True)])
    assert np.array_equal(vector, original)


def test_every_other_entry_of_an_array_can_be_masked_in_place() -> None:
    whole = np.zeros(2001, dtype=np.uint32)
    add_mask(whole[::2], bytes(32))
    assert np.array_equal(whole[::2], key_stream(bytes(32), 1001, np.uint32))
    assert not whole[1::2].any()


def test_other_keys_give_other_masks() -> None:
    masks = []
    for byte in range(8):
        vector = np.zeros(4, dtype=np.uint64)
        add_mask(vector, bytes(31) + bytes([byte]))
        masks.append(vector.tobytes())
    assert len(set(masks)) == 8


def test_a_key_of_another_length_is_refused() -> None:
    vector = np.zeros(4, dtype=np.uint32)
    with pytest.raises(ValueError, match="key size"):
        add_mask(vector, bytes(31))
    assert not vector.any()


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("around", [-1, 0, 1])
def test_pieces_end_where_the_buffer_does(word: Any, around: int) -> None:
    length = masks_module._CHUNK_BYTES // np.dtype(word).itemsize + around
    vector = np.zeros(length, dtype=word)
    add_mask(vector, bytes(range(16)))
    assert np.array_equal(vector, key_stream(bytes(range(16)), length, word))


@pytest.mark.parametrize("threads", [1, 2, 3, 64])
def test_threads_change_nothing(threads: int) -> None:
    masks = [Mask(bytes([index]) * 16, index % 3 == 0) for index in range(17)]
    one = np.arange(200_000, dtype=np.uint32)
    two, three = one.copy(), one.copy()
    add_masks(one, masks)
    add_masks_in_threads(two, masks, threads)
    assert np.array_equal(one, two)
    for mask in masks:
        add_masks(three, [mask])
    assert np.array_equal(one, three)
    add_masks_in_threads(two, [], threads)
    assert np.array_equal(one, two)


def test_drawn_streams_are_the_ciphers() -> None:
    drawn = np.frombuffer(masks_module.key_stream(bytes(32), 100), dtype=np.uint32)
    assert np.array_equal(drawn, key_stream(bytes(32), 25, np.uint32))


def test_a_mask_shows_no_key() -> None:
    assert repr(Mask(b"0123456789abcdef", True)) == "<Mask>"


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("size", [1, 3, 4096, 5001])
def test_a_stream_adds_to_pieces_what_the_masks_add_to_the_whole(word: Any, size: int) -> None:
    masks = [Mask(bytes(range(16)), negative=False), Mask(bytes(range(32)), negative=True)]
    whole = np.arange(9_999 if size > 3 else 99, dtype=word) * word(2_654_435_761)
    pieces = whole.copy()
    add_masks(whole, masks)
    stream = MaskStream(masks)
    for start in range(0, len(pieces), size):
        stream.add_to(pieces[start : start + size])
    assert np.array_equal(pieces, whole)
