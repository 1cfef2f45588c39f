"""`python -m kompress_jobs`, the command of every pod."""

import logging
import os

from kompress_jobs.pod.launcher import main

code = main()
logging.shutdown()
os._exit(code)  # threads may still wait inside of C++ code, for a peer or a server that will not answer
