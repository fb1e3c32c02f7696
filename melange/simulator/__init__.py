"""The simulator: a planned fleet, request by request."""
