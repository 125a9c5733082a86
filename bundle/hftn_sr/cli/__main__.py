"""`python -m hftn_sr.cli`: the command where the package is not installed, from the folder of an unpacked bundle."""

from hftn_sr.cli import main

if __name__ == "__main__":
    main()
