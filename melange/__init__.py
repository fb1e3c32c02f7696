"""Find the cheapest fleet of GPUs that serves an LLM workload within a stated latency promise."""

__version__ = "0.1.0"
