"""A package by name: gpuhunt installs one called tests, which would otherwise be found in its place."""
