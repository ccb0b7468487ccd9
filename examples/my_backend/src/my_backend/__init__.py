"""A backend, a task and a codec for paramgen."""
