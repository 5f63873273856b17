#!/usr/local/bin/python3 -IS
"""Ask the role in this container how it is: ``tickloom-health PORT``. Exit code 0: it can do its work.

What it answers goes to standard output, where ``docker inspect`` shows it.
"""

import http.client
import sys

TIMEOUT_S = 4.0  # less than the HEALTHCHECK's own, so that it is us who say what is wrong


def main() -> int:
    """Return the exit code."""
    port = int(sys.argv[1])
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        connection.request("GET", "/health")
        answer = connection.getresponse()
        print(answer.read().decode())
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer from port {port}: {error!r}")
        return 1
    return 0 if answer.status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
