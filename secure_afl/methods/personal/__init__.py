"""Ways for a client to make a model of its own, found by the registry in `personal`.

A module in here that defines a `Personal` is a way of the project: nothing else has to name it. All
of it happens at the client. It must not know who else there is, and nothing of it leaves.
"""
