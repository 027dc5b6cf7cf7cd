"""A fabric on a real kernel with real daemons, in a machine that boots in seconds."""
