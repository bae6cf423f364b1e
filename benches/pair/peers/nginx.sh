#!/usr/bin/env bash
# nginx of the distribution: its stream module, or a reverse proxy with kept connections. It speaks no HTTP/2 to what is behind it.
# It verifies the chain on both sides and, calling, a DNS name: it compares no URI names.
. "$(dirname "${BASH_SOURCE[0]}")/../peer.sh"

NGINX=${NGINX:-nginx}
MODULES=${NGINX_MODULES:-/usr/lib/nginx/modules}

peer_caps() {
  if command -v "$NGINX" >/dev/null; then echo "tcp tcp-resume http1"; fi
}

peer_version() {
  echo "nginx $("$NGINX" -v 2>&1 | grep -oE '[0-9]+\.[0-9]+\.[0-9]+')"
}

peer_configure() {
  local side
  for side in in out; do
    mkdir -p "$PAIR_DIR/nginx-$side"
    { common "$PAIR_DIR/nginx-$side"; "${PAIR_MODE/http1/http}_$side" "$PAIR_DIR/nginx-$side"; } >"$PAIR_DIR/$side.conf"
  done
}

common() {
  cat <<END
load_module $MODULES/ngx_stream_module.so;
pid $1/pid;
error_log $1/error.log warn;
worker_processes $PAIR_WORKERS;
daemon off;
worker_rlimit_nofile 19000;
events { worker_connections 18000; }
END
}

tcp_in() {
  cat <<END
stream {
  tcp_nodelay on;
  $(as_server)
  server { listen 0.0.0.0:$PAIR_IN_PORT ssl backlog=8192; proxy_timeout 1h; proxy_pass 127.0.0.1:$PAIR_BACKEND_PORT; }
}
END
}

tcp_out() {
  cat <<END
stream {
  tcp_nodelay on;
  $(as_client)
  server { listen 127.0.0.1:$PAIR_OUT_PORT backlog=8192; proxy_timeout 1h; proxy_ssl on; proxy_pass $PAIR_IN_ADDR:$PAIR_IN_PORT; }
}
END
}

http_in() {
  cat <<END
http {
  $(as_proxy "$1")
  $(as_server)
  upstream app { server 127.0.0.1:$PAIR_BACKEND_PORT; keepalive 256; keepalive_requests 1000000000; }
  server { listen 0.0.0.0:$PAIR_IN_PORT ssl backlog=8192; location / { proxy_pass http://app; } }
}
END
}

http_out() {
  cat <<END
http {
  $(as_proxy "$1")
  $(as_client)
  upstream in { server $PAIR_IN_ADDR:$PAIR_IN_PORT; keepalive 256; keepalive_requests 1000000000; }
  server { listen 127.0.0.1:$PAIR_OUT_PORT backlog=8192; location / { proxy_pass https://in; } }
}
END
}

as_proxy() {
  local kind
  echo 'access_log off; keepalive_timeout 3600s; keepalive_requests 1000000000; proxy_http_version 1.1; proxy_set_header Connection "";'
  for kind in client_body proxy fastcgi uwsgi scgi; do echo "  ${kind}_temp_path $1/$kind;"; done
}

as_server() {
  local tickets=off cache=none
  if [ "$PAIR_RESUME" = 1 ]; then tickets=on cache=shared:sessions:10m; fi
  cat <<END
ssl_certificate $PAIR_PKI/server.pem;
  ssl_certificate_key $PAIR_PKI/server.key;
  ssl_client_certificate $PAIR_PKI/ca.pem;
  ssl_verify_client on;
  ssl_protocols TLSv1.3;
  ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
  ssl_session_tickets $tickets;
  ssl_session_cache $cache;
END
}

as_client() {
  local reuse=off
  if [ "$PAIR_RESUME" = 1 ]; then reuse=on; fi
  cat <<END
proxy_ssl_certificate $PAIR_PKI/client.pem;
  proxy_ssl_certificate_key $PAIR_PKI/client.key;
  proxy_ssl_trusted_certificate $PAIR_PKI/ca.pem;
  proxy_ssl_verify on;
  proxy_ssl_name server.test;
  proxy_ssl_server_name on;
  proxy_ssl_protocols TLSv1.3;
  proxy_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
  proxy_ssl_session_reuse $reuse;
END
}

peer_start() {
  local side
  for side in in out; do
    launch "$side" "$NGINX" -e "$PAIR_DIR/nginx-$side/error.log" -c "$PAIR_DIR/$side.conf"
  done
}

main "$@"
