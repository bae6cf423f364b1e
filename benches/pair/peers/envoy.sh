#!/usr/bin/env bash
# Envoy from PyPI, one process each side: its TCP proxy, or its HTTP connection manager. Both sides compare SPIFFE IDs.
. "$(dirname "${BASH_SOURCE[0]}")/../peer.sh"

ENVOY=${ENVOY:-$PAIR_BIN/envoy}
V3=type.googleapis.com/envoy.extensions

peer_caps() {
  if [ -x "$ENVOY" ]; then echo "tcp tcp-resume http1 http2"; fi
}

peer_version() {
  echo "Envoy $("$ENVOY" --version | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -1)"
}

peer_configure() {
  inbound >"$PAIR_DIR/in.yaml"
  outbound >"$PAIR_DIR/out.yaml"
}

inbound() {
  local resumes=true
  if [ "$PAIR_RESUME" = 1 ]; then resumes=false; fi
  cat <<END
static_resources:
  listeners:
  - name: in
    address: {socket_address: {address: 0.0.0.0, port_value: $PAIR_IN_PORT}}
    filter_chains:
    - filters:
$(filters app)
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": $V3.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          disable_stateless_session_resumption: $resumes
          disable_stateful_session_resumption: $resumes
          common_tls_context:
$(tls_of server client)
  clusters:
$(cluster app 127.0.0.1 "$PAIR_BACKEND_PORT")
END
}

outbound() {
  local sessions=0
  if [ "$PAIR_RESUME" = 1 ]; then sessions=1024; fi
  cat <<END
static_resources:
  listeners:
  - name: out
    address: {socket_address: {address: 127.0.0.1, port_value: $PAIR_OUT_PORT}}
    filter_chains:
    - filters:
$(filters in)
  clusters:
$(cluster in "$PAIR_IN_ADDR" "$PAIR_IN_PORT")
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": $V3.transport_sockets.tls.v3.UpstreamTlsContext
        sni: server.test
        max_session_keys: $sessions
        common_tls_context:
$(tls_of client server)
END
}

# Who this side is, and whom it expects.
tls_of() {
  case $PAIR_MODE in
  http1) echo '            alpn_protocols: [http/1.1]' ;;
  http2) echo '            alpn_protocols: [h2]' ;;
  esac
  cat <<END
            tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3, ecdh_curves: [X25519]}
            tls_certificates: [{certificate_chain: {filename: $PAIR_PKI/$1.pem}, private_key: {filename: $PAIR_PKI/$1.key}}]
            validation_context:
              trusted_ca: {filename: $PAIR_PKI/ca.pem}
              match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: "spiffe://example.org/ns/default/sa/$2"}}]
END
}

filters() {
  if [ "$PAIR_MODE" = tcp ]; then
    cat <<END
      - name: envoy.filters.network.tcp_proxy
        typed_config: {"@type": $V3.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: pair, cluster: $1}
END
    return
  fi
  cat <<END
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": $V3.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: pair
          codec_type: AUTO
          http_filters: [{name: envoy.filters.http.router, typed_config: {"@type": $V3.filters.http.router.v3.Router}}]
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: "/"}, route: {cluster: $1}}]}]}
END
}

# A name, an address and a port. The usual bounds of a cluster would refuse what the tests ask for.
cluster() {
  cat <<END
  - name: $1
    type: STATIC
    connect_timeout: 5s
    circuit_breakers: {thresholds: [{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}]}
    load_assignment: {cluster_name: $1, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: $2, port_value: $3}}}}]}]}
END
  if [ "$PAIR_MODE" != http2 ]; then return; fi
  cat <<END
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": $V3.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
END
}

peer_start() {
  local side
  for side in in out; do
    launch "$side" "$ENVOY" -c "$PAIR_DIR/$side.yaml" --concurrency "$PAIR_WORKERS" --disable-hot-restart -l warning
  done
}

main "$@"
