"""Renderers: values in, strings out. Only the command line writes them anywhere."""
