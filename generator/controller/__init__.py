"""Where a payload comes from: config.yaml, a file, standard input or HTTP."""
