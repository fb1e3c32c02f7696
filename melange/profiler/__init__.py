"""Measuring a serving engine: engines, load generation, statistics, search, and the file that survives a crash."""
