#!/usr/bin/env bash
# HAProxy of the distribution, with one thread for each worker. It verifies the chain on both sides and, calling, a DNS name: the
# version that Debian 12 has compares no URI names.
. "$(dirname "${BASH_SOURCE[0]}")/../peer.sh"

HAPROXY=${HAPROXY:-haproxy}

peer_caps() {
  if command -v "$HAPROXY" >/dev/null; then echo "tcp tcp-resume http1 http2"; fi
}

peer_version() {
  echo "HAProxy $("$HAPROXY" -v | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -1)"
}

peer_configure() {
  # What is spoken to the application's side (plain) and between the two (sealed), here as a server and there as a client.
  local plain="" sealed="" tickets=no-tls-tickets reuse=no-ssl-reuse
  if [ "$PAIR_MODE" = http1 ]; then sealed="alpn http/1.1"; fi
  if [ "$PAIR_MODE" = http2 ]; then sealed="alpn h2" plain="proto h2"; fi
  if [ "$PAIR_RESUME" = 1 ]; then tickets="" reuse=""; fi
  { common; cat <<END
listen in
  bind 0.0.0.0:$PAIR_IN_PORT backlog 8192 ssl crt $PAIR_PKI/server.bundle.pem ca-file $PAIR_PKI/ca.pem verify required $sealed $tickets
  server app 127.0.0.1:$PAIR_BACKEND_PORT $plain
END
  } >"$PAIR_DIR/in.cfg"
  { common; cat <<END
listen out
  bind 127.0.0.1:$PAIR_OUT_PORT backlog 8192 $plain
  server in $PAIR_IN_ADDR:$PAIR_IN_PORT ssl verify required ca-file $PAIR_PKI/ca.pem crt $PAIR_PKI/client.bundle.pem sni str(server.test) verifyhost server.test $sealed $reuse
END
  } >"$PAIR_DIR/out.cfg"
}

common() {
  local mode="mode http
  http-reuse always"
  if [ "$PAIR_MODE" = tcp ]; then mode="mode tcp"; fi
  cat <<END
global
  nbthread $PAIR_WORKERS
  maxconn 9000
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
  ssl-default-server-ciphersuites TLS_AES_128_GCM_SHA256
defaults
  $mode
  timeout connect 5s
  timeout client 1h
  timeout server 1h
END
}

peer_start() {
  launch in "$HAPROXY" -db -f "$PAIR_DIR/in.cfg"
  launch out "$HAPROXY" -db -f "$PAIR_DIR/out.cfg"
}

main "$@"
