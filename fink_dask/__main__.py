"""Run the command line as ``python -m fink_dask``."""

from fink_dask.cli.main import main

if __name__ == "__main__":
    main()
