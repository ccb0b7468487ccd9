"""Train and import the networks of a zoo."""
