"""The name that `gmmlib.data.datasets` had before 0.2.0."""

import sys

from gmmlib.data import datasets

if __name__ == "__main__":
    sys.exit(datasets.main())
sys.modules[__name__] = datasets
