"""Studies of the papers, not verbs of everyday use."""
