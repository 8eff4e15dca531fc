"""Every system's objective on the same pictures: what it moves, what that costs an eye, and how long it takes."""
