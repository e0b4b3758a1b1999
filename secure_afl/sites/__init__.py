"""A site: one organisation's party, its file of settings, its folder of state, and its post.

All that protects a site stands in its own file. It must not know an engine, or another site's data.
"""
