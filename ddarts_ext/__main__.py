"""``python -m ddarts_ext`` is the command ``ddarts``."""

from ddarts_ext.cli import main

if __name__ == "__main__":
    main()
