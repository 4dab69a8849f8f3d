"""The command line: ``python -m gmmlib.restore denoise``, ``inpaint``, or ``train``."""

import logging
import sys

if __name__ == "__main__":
    logging.getLogger().addHandler(logging.NullHandler())  # what decoders log names no file
    try:
        from gmmlib.restore.command import main
    except ImportError as error:  # of a package that an extra brings; it says which
        sys.exit(str(error))
    sys.exit(main())
