"""`python -m bridged` and the console script `bridged`."""

from bridged.cli import cli


def main() -> None:
    """Run the command line; exits with its code."""
    # The name is said, so that messages and completion are the same for both ways to start.
    cli(prog_name="bridged")


if __name__ == "__main__":
    main()
