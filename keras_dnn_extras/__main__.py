"""`python -m keras_dnn_extras`."""

import sys

from keras_dnn_extras.command_line import main

if __name__ == "__main__":
    sys.exit(main())
