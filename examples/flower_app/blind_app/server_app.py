"""The server app: an unchanged FedAvg, and a grid over which it sees the clients' mean alone."""

from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from blind_app.task import initial
from protocols import Pairwise
from secure_afl.flower.blind.grid import BlindSum

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train for some rounds and save the model."""
    arrays = ArrayRecord({name: Array(values) for name, values in initial().items()})
    nodes = int(context.run_config.get("nodes", 10))
    result = FedAvg(min_train_nodes=nodes, min_available_nodes=nodes).start(
        grid=BlindSum(grid, Pairwise(), clip=20.0, most=1024),
        initial_arrays=arrays,
        num_rounds=int(context.run_config.get("num-server-rounds", 3)),
    )
    model = {name: array.numpy() for name, array in result.arrays.items()}
    path = Path("model.npz").resolve()
    np.savez(path, allow_pickle=False, **model)
    print(f"model: {path}")
