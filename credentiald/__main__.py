"""`python -m credentiald` and the console script `credentiald`."""

import os

from credentiald.cli.root import cli


def main() -> None:
    """Run the command line; exits with its code."""
    # gRPC's core prints lines of its own between those of our log, also for strangers whose handshakes fail.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # The name is said, so that messages and completion are the same for both ways to start.
    cli(prog_name="credentiald")


if __name__ == "__main__":
    main()
