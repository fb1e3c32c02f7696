"""What load points say under an SLO: a verdict on each, and the interval that they leave for a size's capacity."""
