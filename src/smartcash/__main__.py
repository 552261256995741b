"""`python -m smartcash` is the command line."""

from smartcash.cli import main

if __name__ == "__main__":
    main()
