"""One client's CPU in Flower's SecAgg+, and the error of its sum; prints JSON.

Run by `benchmarks.pairwise` with the interpreter of an environment that has flwr. It calls the very
functions of Flower's client, in the order of its workflow (flwr.server.workflow).
"""

import json
import time
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
from flwr.common import bytes_to_ndarray, ndarrays_to_parameters
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    factor_extract,
    parameters_addition,
    parameters_mod,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.quantization import dequantize
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

# The package has a function of the module's name.
client = import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")

ENTRIES = 535_000
STEP = 2.0**-20


def main() -> None:
    """100 clients for the CPU of three of them; 10 for the error."""
    cpu = run(100, 56, upload=3)[0]
    _, error = run(10, 7, upload=10)
    print(
        json.dumps(
            {
                "flwr": version("flwr"),
                "client_cpu_seconds": float(np.median(cpu)),
                "largest_error": error,
                "error_in_steps_of_the_integers": error / STEP,
            }
        )
    )


def values(index: int) -> Any:
    """Multiples of 2^-20 in −1..1, as floats: what the other side adds up as integers."""
    rng = np.random.default_rng(index)
    return rng.integers(-(2**20), 2**20 + 1, ENTRIES) * STEP


def run(clients: int, threshold: int, upload: int) -> tuple[list[float], float]:
    """CPU seconds of the clients that upload, and the largest error of the sum if all do."""
    cpu = dict.fromkeys(range(1, clients + 1), 0.0)

    def timed(node: int, function: Callable[..., Any], *arguments: Any) -> Any:
        begin = time.process_time()  # its secret sharing works in threads
        result = function(*arguments)
        cpu[node] += time.process_time() - begin
        return result

    states = {node: client.SecAggPlusState() for node in cpu}
    setup = {
        Key.SAMPLE_NUMBER: clients,
        Key.SHARE_NUMBER: clients,
        Key.THRESHOLD: threshold,
        Key.CLIPPING_RANGE: 8.0,
        Key.TARGET_RANGE: 2**22,
        Key.MOD_RANGE: 2**32,
        Key.MAX_WEIGHT: 1.0,
    }
    keys = {}
    for node, state in states.items():
        state.nid = node
        public = timed(node, client._setup, state, setup)
        keys[str(node)] = (public[Key.PUBLIC_KEY_1], public[Key.PUBLIC_KEY_2])
    inbox: dict[int, tuple[list[int], list[bytes]]] = {node: ([], []) for node in states}
    for node, state in states.items():
        shared = timed(node, client._share_keys, state, keys)
        for to, sealed in zip(
            shared[Key.DESTINATION_LIST], shared[Key.CIPHERTEXT_LIST], strict=True
        ):
            inbox[to][0].append(node)
            inbox[to][1].append(sealed)
    total, uploaded = None, list(states)[:upload]
    for node in uploaded:
        sources, sealed = inbox[node]
        received = {Key.SOURCE_LIST: sources, Key.CIPHERTEXT_LIST: sealed}
        parameters = ndarrays_to_parameters([values(node)])
        timed(node, client._collect_masked_vectors, states[node], received, 1, parameters)
    for node in uploaded:
        asked = {Key.ACTIVE_NODE_ID_LIST: list(states), Key.DEAD_NODE_ID_LIST: []}
        timed(node, client._unmask, states[node], asked)
    if upload < clients:
        return [cpu[node] for node in uploaded], float("nan")
    for node in uploaded:
        # The masked vector again, for the sum; the first one was for the time.
        state, (sources, sealed) = states[node], inbox[node]
        received = {Key.SOURCE_LIST: sources, Key.CIPHERTEXT_LIST: sealed}
        answer = client._collect_masked_vectors(
            state, received, 1, ndarrays_to_parameters([values(node)])
        )
        masked = [bytes_to_ndarray(data) for data in answer[Key.MASKED_PARAMETERS]]
        shapes = [array.shape for array in masked]
        opened = parameters_subtraction(
            masked, pseudo_rand_gen(state.rd_seed, setup[Key.MOD_RANGE], shapes)
        )
        total = opened if total is None else parameters_addition(total, opened)
    ratio, quantised = factor_extract(parameters_mod(total, setup[Key.MOD_RANGE]))
    (mean,) = dequantize(quantised, setup[Key.CLIPPING_RANGE], setup[Key.TARGET_RANGE])
    mean += -(clients - 1) * setup[Key.CLIPPING_RANGE]
    mean *= setup[Key.TARGET_RANGE] / ratio
    truth = sum(values(node) for node in uploaded)
    return [cpu[node] for node in uploaded], float(np.max(np.abs(mean * clients - truth)))


if __name__ == "__main__":
    main()
