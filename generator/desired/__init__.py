"""What a host should be. Nothing here reads a clock, a disk or a network."""
