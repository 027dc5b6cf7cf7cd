"""What a host is. Nothing here changes a host."""
