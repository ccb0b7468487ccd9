"""What a fit costs before it is run: memory, arithmetic, time, bytes read."""
