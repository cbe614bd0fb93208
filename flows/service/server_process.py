"""The process of an embedded Prefect server: `python -P .../server_process.py PORT`.

Run as a file and importing nothing of ours, so that no folder of the user's can stand in the way of our packages.
"""

import gc
import sys

# The imports make objects by the million that all stay: to look for garbage among them over and over takes a third
# of the time.
gc.disable()

import uvicorn  # noqa: E402 - the collector is switched off first
from prefect.server.api.server import create_app  # noqa: E402 - likewise


def main(port: int) -> None:
    """Serve Prefect's API on 127.0.0.1 until SIGTERM."""
    app = create_app(ephemeral=True)
    gc.freeze()
    gc.enable()
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False, lifespan="on")


if __name__ == "__main__":
    main(int(sys.argv[1]))
