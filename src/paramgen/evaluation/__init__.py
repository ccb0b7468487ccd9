"""From networks to numbers."""
