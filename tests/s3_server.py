"""moto's S3 API on loopback: prints its port, serves until its standard input ends.

Its argument is the latency of every answer, in seconds.
"""

import logging
import sys
import threading
import time

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server


class OneAtATime:
    """S3 decides a conditional write in one step; moto compares, then writes, so its requests must not overlap."""

    def __init__(self, app, latency_s):
        self._app = app
        self._latency_s = latency_s
        self._lock = threading.Lock()

    def __call__(self, environ, start_response):
        time.sleep(self._latency_s)  # the network between here and there
        with self._lock:
            return self._app(environ, start_response)


def main():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = OneAtATime(DomainDispatcherApplication(create_backend_app), float(sys.argv[1]))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
