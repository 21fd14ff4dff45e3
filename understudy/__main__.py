"""`understudy` and `python -m understudy`."""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 a defect, 2 a mistake of the user; more in `cli.main`."""
    from understudy.cli import main

    return main(argv)


if __name__ == "__main__":
    sys.exit(main())
