#!/usr/local/bin/python3 -IS
"""Ask a role in this container how it is: its words on standard output, exit code 0 when it can do its work."""

import http.client
import sys

PORT = 9100  # metrics and health of every role, set in the Dockerfile
TIMEOUT_S = 4.0

try:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=TIMEOUT_S)
    connection.request("GET", "/health")
    answer = connection.getresponse()
    print(answer.read().decode())
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"no answer from port {PORT}: {error!r}")
sys.exit(0 if answer.status == http.client.OK else 1)
