"""Image classification: data sets, networks, and families of related tasks."""
