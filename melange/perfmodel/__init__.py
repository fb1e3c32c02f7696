"""The performance model: how long an engine iteration takes, what follows from it, and how it is calibrated."""
