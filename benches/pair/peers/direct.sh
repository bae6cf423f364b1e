#!/usr/bin/env bash
# No proxy: the client talks to the application over the same link. What latency cannot fall below.
. "$(dirname "${BASH_SOURCE[0]}")/../peer.sh"

peer_caps() {
  echo "tcp"
}

peer_version() {
  echo "no proxy"
}

peer_configure() {
  :
}

peer_start() {
  echo "$EPOCHREALTIME" >"$PAIR_DIR/launched"
}

peer_target() {
  echo "$PAIR_IN_ADDR:$PAIR_BACKEND_PORT"
}

main "$@"
