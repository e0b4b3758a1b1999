"""A Flower app whose updates leave their nodes in a blind sum only. Run it by `flwr run`."""
