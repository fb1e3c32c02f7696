"""NanoFlow: what overlapping operations inside one GPU brings, and an engine that does it.

The modules here need no torch: costs of operations, measured and modelled operation times, the search for a pipeline of
nano-batches. ``runtime`` is the engine that executes one.
"""
