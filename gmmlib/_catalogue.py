"""The name that `gmmlib.data.catalogue` had before 0.2.0."""

import sys

from gmmlib.data import catalogue

sys.modules[__name__] = catalogue
