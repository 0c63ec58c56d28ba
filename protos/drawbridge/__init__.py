"""The contract between the two daemons, `drawbridge.v1`."""
