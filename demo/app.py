"""The page, as `vcae demo` shows it: `python demo/app.py --help`."""

import sys

from vcae.cli.app import main

if __name__ == "__main__":
    sys.argv.insert(1, "demo")
    main()
