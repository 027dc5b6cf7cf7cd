"""The hook that keeps the management address where the fabric is."""
