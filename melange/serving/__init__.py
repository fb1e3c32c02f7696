"""What runs on a machine: a model on an engine, its settings and its arguments."""
