"""What can be rented and served: GPUs, models, instance types, dated offers."""
