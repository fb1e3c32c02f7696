"""The closed loop: the cheapest fleet that keeps its promise in simulation."""
