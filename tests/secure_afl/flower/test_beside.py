"""What Flower's own secure aggregation does not guard against: a server that lies about keys.

It is Flower's client that is deceived here, function by function as its messages call them. Ours
refuses another roster, see test_exchanges.
"""

from importlib import import_module
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra 'flower'")

CLIENTS, THRESHOLD = 5, 4
VICTIM = 3
CLIP, TARGET, MODULUS = 8.0, 2**22, 2**32


def part(name: str) -> Any:
    """A private part of Flower's, whose own types are not right."""
    return import_module(f"flwr.{name}")


client = part("client.mod.secure_aggregation.secaggplus_mod")
arithmetic = part("common.secure_aggregation.ndarrays_arithmetic")
utils = part("common.secure_aggregation.secaggplus_utils")
Key = part("common.secure_aggregation.secaggplus_constants").Key
combine_shares = part("common.secure_aggregation.crypto.shamir").combine_shares
dequantize = part("common.secure_aggregation.quantization").dequantize
common = part("common")


def test_a_server_that_makes_up_all_other_clients_reads_the_update_of_one() -> None:
    update = np.random.default_rng(0).uniform(-1, 1, 50)
    setup = {
        Key.SAMPLE_NUMBER: CLIENTS,
        Key.SHARE_NUMBER: CLIENTS,
        Key.THRESHOLD: THRESHOLD,
        Key.CLIPPING_RANGE: CLIP,
        Key.TARGET_RANGE: TARGET,
        Key.MOD_RANGE: MODULUS,
        Key.MAX_WEIGHT: 1.0,
    }
    # All but the victim run at the server, which forwards public keys: nobody has signed them.
    states = {node: client.SecAggPlusState() for node in range(1, CLIENTS + 1)}
    keys, boxes = {}, {}
    for node, state in states.items():
        state.nid = node
        public = client._setup(state, setup)
        keys[str(node)] = (public[Key.PUBLIC_KEY_1], public[Key.PUBLIC_KEY_2])
    for node, state in states.items():
        sent = client._share_keys(state, keys)
        boxes[node] = dict(zip(sent[Key.DESTINATION_LIST], sent[Key.CIPHERTEXT_LIST], strict=True))
    fakes = {node: state for node, state in states.items() if node != VICTIM}
    received = {
        Key.SOURCE_LIST: list(fakes),
        Key.CIPHERTEXT_LIST: [boxes[node][VICTIM] for node in fakes],
    }
    answer = client._collect_masked_vectors(
        states[VICTIM], received, 1, common.ndarrays_to_parameters([update])
    )
    masked = [common.bytes_to_ndarray(data) for data in answer[Key.MASKED_PARAMETERS]]

    # From here on there is nothing of the victim's but what it sent.
    shapes = [array.shape for array in masked]
    shares = []
    for node, fake in fakes.items():
        opened = utils.share_keys_plaintext_separate(
            client.decrypt(fake.ss2_dict[VICTIM], boxes[VICTIM][node])
        )
        shares.append(opened[2])
        pair = client.generate_shared_key(
            client.bytes_to_private_key(fake.sk1),
            client.bytes_to_public_key(keys[str(VICTIM)][0]),
        )
        mask = utils.pseudo_rand_gen(pair, MODULUS, shapes)
        take = (
            arithmetic.parameters_subtraction if node < VICTIM else arithmetic.parameters_addition
        )
        masked = take(masked, mask)
    own = utils.pseudo_rand_gen(combine_shares(shares[:THRESHOLD]), MODULUS, shapes)
    masked = arithmetic.parameters_mod(arithmetic.parameters_subtraction(masked, own), MODULUS)
    _, integers = arithmetic.factor_extract(masked)
    (found,) = dequantize(integers, CLIP, TARGET)
    assert np.allclose(found, update, rtol=0, atol=2 * CLIP / TARGET)
