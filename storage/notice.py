"""The level of log lines that people are shown although nothing is wrong: what was found, what was left out."""

import logging

NOTICE = (logging.INFO + logging.WARNING) // 2
logging.addLevelName(NOTICE, "NOTICE")
