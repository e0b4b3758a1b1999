"""A Flower app whose updates leave their nodes in a blind sum only. README.md runs it."""
