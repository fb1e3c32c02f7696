"""The version of Mélange, which plans, reports and servers state."""

__version__ = "0.1.0"
