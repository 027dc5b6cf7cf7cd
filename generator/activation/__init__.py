"""How a host becomes what it should be: files, native tools, their order, and the check."""
