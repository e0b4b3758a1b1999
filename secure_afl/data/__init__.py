"""Images, tables of features and labels from disk, and how one data set is cut into clients.

It must not know backbones, methods or protocols: it ends where features begin.
"""
