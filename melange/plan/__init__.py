"""What is answered: a fleet, what it serves, what it costs, and what all of that rests on."""
