"""What runs inside the lab's machine; it has nothing but the standard library there."""
