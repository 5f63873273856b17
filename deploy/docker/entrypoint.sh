#!/bin/sh
# Start a role. Workers need a name of their own each: a container's host name is its id, a pod's is the pod's name.
set -eu
export TICKLOOM_WORKER_NAME="${TICKLOOM_WORKER_NAME:-$(hostname)}"
exec tickloom "$@"
