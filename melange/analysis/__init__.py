"""Studies on top of plans: sweeps, odds, cost efficiency, overlap, additivity."""
