"""Networks that take and return tensors: no Lightning, no paths, no logging."""
