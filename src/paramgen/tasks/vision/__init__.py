"""Image classification: datasets, networks, and families of related tasks."""
