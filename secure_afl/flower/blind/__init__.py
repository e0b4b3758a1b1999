"""Blind sums for Flower apps of other people: a grid for the server app, a mod for the client app.

Strategies see the clients' weighted mean as the reply of one node. They must not see single
updates, and this must not know what is trained.
"""
