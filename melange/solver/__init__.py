"""The integer program: its problem, its solution, their proof and what they would cost otherwise. It knows no GPU."""
