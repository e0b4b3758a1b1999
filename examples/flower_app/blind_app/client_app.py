"""The client app as Flower's users write it, with the mod that lets updates out in sums only."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from blind_app.task import accuracy, rows_of, train
from secure_afl.flower.blind.mod import blind_sum_mod

app = ClientApp()


def given(message: Message) -> dict[str, np.ndarray]:
    """The model that came with a message."""
    return {name: array.numpy() for name, array in message.content.array_records["arrays"].items()}


def own_rows(context: Context) -> tuple[np.ndarray, np.ndarray]:
    """This node's rows and labels."""
    config = context.node_config
    return rows_of(int(config["partition-id"]), int(config["num-partitions"]))


@app.train(mods=[blind_sum_mod])
def on_train(message: Message, context: Context) -> Message:
    """Train on this node's rows."""
    rows, labels = own_rows(context)
    rate = float(context.run_config.get("learning-rate", 1.0))
    trained = train(given(message), rows, labels, rate)
    arrays = ArrayRecord({name: Array(values) for name, values in trained.items()})
    metrics = MetricRecord({"num-examples": len(rows)})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()
def on_evaluate(message: Message, context: Context) -> Message:
    """Score this node's rows; what is returned here is seen by the server."""
    rows, labels = own_rows(context)
    right = accuracy(given(message), rows, labels)
    metrics = MetricRecord({"num-examples": float(len(rows)), "accuracy": right})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
