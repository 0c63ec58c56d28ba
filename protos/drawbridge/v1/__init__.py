"""Version 1: generated from the protos beside it by scripts/gen_proto."""
