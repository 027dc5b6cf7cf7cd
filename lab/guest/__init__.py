"""Code that runs inside the lab's machine, where it has only the standard library."""
