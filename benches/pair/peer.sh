# What every peer's script begins with. pair.py sets:
#   PAIR_BIN                       where binaries are
#   PAIR_DIR PAIR_PKI              a fresh directory for this start, and the certificates
#   PAIR_MODE                      tcp, http1 or http2
#   PAIR_RESUME                    1 where TLS sessions may be resumed, else 0
#   PAIR_WORKERS                   threads or processes each proxy may work with
#   PAIR_OUT_PORT PAIR_IN_PORT     where the two proxies listen
#   PAIR_IN_ADDR                   where the outbound proxy finds the inbound one
#   PAIR_BACKEND_PORT              where the inbound proxy finds the application, on loopback
#   PAIR_OUT_EXEC PAIR_IN_EXEC     the words that put a process into its namespace and on its processor
#
# A peer defines peer_caps, peer_version, peer_configure and peer_start, and ends with: main "$@"
# shellcheck shell=bash
ulimit -n "$(ulimit -Hn)"

main() {
  local command=${1:-}
  case $command in
  caps | version | configure | start | stop | target) "peer_$command" ;;
  *) echo "usage: $0 caps|version|configure|start|stop|target" >&2; exit 2 ;;
  esac
}

# Starts one proxy of the pair: launch in|out COMMAND... The first start is the moment from which readiness counts.
launch() {
  local side=$1 place=$PAIR_OUT_EXEC
  shift
  if [ "$side" = in ]; then place=$PAIR_IN_EXEC; fi
  if [ ! -e "$PAIR_DIR/launched" ]; then echo "$EPOCHREALTIME" >"$PAIR_DIR/launched"; fi
  # shellcheck disable=SC2086
  $place "$@" >"$PAIR_DIR/$side.log" 2>&1 </dev/null &
  echo $! >"$PAIR_DIR/$side.pid"
}

peer_stop() {
  local side
  for side in out in; do
    if [ -s "$PAIR_DIR/$side.pid" ]; then end "$(cat "$PAIR_DIR/$side.pid")"; fi
  done
}

# A proxy that does not end when it is asked to is killed, with its workers.
end() {
  local pid=$1 turn
  kill -TERM "$pid" 2>/dev/null || return 0
  for turn in {1..30}; do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.05
  done
  pkill -KILL -P "$pid" || true
  kill -KILL "$pid" 2>/dev/null || true
}

peer_target() {
  echo "127.0.0.1:$PAIR_OUT_PORT"
}
