"""What is asked: the rate and true means of requests per size bucket."""
