"""``python -m trainwatch``."""

from trainwatch.cli import main

if __name__ == "__main__":
    main()
