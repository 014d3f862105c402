"""All that runs in a template or worker process.

It must be importable inside any Python environment that a model brings, so nothing in here imports mmserve, or
anything beyond the standard library and NumPy at its top level.
"""
