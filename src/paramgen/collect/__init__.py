"""How zoos are made."""
