"""`python -m credentiald` and the console script `credentiald`."""

from credentiald.cli.root import cli


def main() -> None:
    """Run the command line; exits with its code."""
    # The name is said, so that messages and completion are the same for both ways to start.
    cli(prog_name="credentiald")


if __name__ == "__main__":
    main()
