#!/usr/bin/env bash
# Vouchsafe as it is meant to run: ten policies enforced, everything on record in a file. PAIR_TUNNEL=1 carries connections in
# tunnels, where there is nothing but bytes to compare.
. "$(dirname "${BASH_SOURCE[0]}")/../peer.sh"

VOUCHSAFE=${VOUCHSAFE:-$PAIR_BIN/vouchsafe}

PAIR_TUNNEL=${PAIR_TUNNEL:-0}

peer_caps() {
  if [ ! -x "$VOUCHSAFE" ]; then return; fi
  if [ "$PAIR_TUNNEL" = 1 ]; then echo tcp; else echo "tcp http1 http2"; fi
}

peer_version() {
  "$VOUCHSAFE" --version
}

peer_configure() {
  local protocol=http
  if [ "$PAIR_MODE" = tcp ]; then protocol=tcp; fi
  policies "$protocol"
  inbound "$protocol" >"$PAIR_DIR/in.yaml"
  outbound "$protocol" >"$PAIR_DIR/out.yaml"
}

peer_start() {
  launch in "$VOUCHSAFE" proxy run --config "$PAIR_DIR/in.yaml"
  launch out "$VOUCHSAFE" proxy run --config "$PAIR_DIR/out.yaml"
}

inbound() {
  head_of server
  cat <<END
policies: $PAIR_PKI/policies-$1
inbound:
  - {name: app, listen: "0.0.0.0:$PAIR_IN_PORT", protocol: $1, application: "127.0.0.1:$PAIR_BACKEND_PORT"}
$(if [ "$PAIR_TUNNEL" = 1 ]; then echo 'tunnel: {listen: "0.0.0.0:15008"}'; fi)
audit: {file: $PAIR_DIR/in.audit.jsonl}
END
}

outbound() {
  head_of client
  cat <<END
outbound:
  - name: app
    listen: "127.0.0.1:$PAIR_OUT_PORT"
    protocol: $1
    endpoints: ["$PAIR_IN_ADDR:$PAIR_IN_PORT"]
    expect: ["$(spiffe_id server)"]
$(if [ "$PAIR_TUNNEL" = 1 ]; then echo "    tunnel: true"; fi)
audit: {file: $PAIR_DIR/out.audit.jsonl}
END
}

head_of() {
  cat <<END
vouchsafe: proxy/v1
workers: $PAIR_WORKERS
source: {pem: {certificate: $PAIR_PKI/$1.pem, key: $PAIR_PKI/$1.key, bundle: $PAIR_PKI/ca.pem}}
END
}

# Ten policies that all protect the server, as several teams would write them. Only the last grants what the load asks for, so
# that every decision looks at the others first. They are there before a sidecar starts: one that was written a moment ago is read
# twice, which would count as its start.
policies() {
  local protocol=$1 directory=$PAIR_PKI/policies-$1 team
  if [ -d "$directory" ]; then return; fi
  mkdir -p "$directory"
  for team in billing catalog checkout delivery orders search support warehouse; do
    neighbour "$team" >"$directory/$team.yaml"
  done
  guardrails "$protocol" >"$directory/guardrails.yaml"
  granting "$protocol" >"$directory/web.yaml"
  sleep 2
}

neighbour() {
  cat <<END
vouchsafe: policy/v1
name: $1
owner: team-$1@example.org
protects: $(spiffe_id server)
allow:
  - name: reads
    from: [spiffe://example.org/ns/$1/sa/*]
    http: {port: $PAIR_IN_PORT, methods: [GET, HEAD], paths: [/v1/$1/**, /v1/rates/*]}
  - name: writes
    from: [spiffe://example.org/ns/$1/sa/writer]
    source_net: [10.0.0.0/8]
    http: {port: $PAIR_IN_PORT, methods: [POST, PUT], paths: [/v1/$1/*]}
  - name: streams
    from: [spiffe://example.org/ns/$1/sa/streamer]
    tcp: {port: $PAIR_IN_PORT}
END
}

# A refusal by path on an opaque port would close it, for the paths cannot be seen there.
guardrails() {
  local refused="http: {port: $PAIR_IN_PORT, paths: [/admin/**]}"
  if [ "$1" = tcp ]; then refused="tcp: {port: 9999}"; fi
  cat <<END
vouchsafe: policy/v1
name: guardrails
protects: spiffe://example.org/**
deny:
  - name: no-development
    from: [spiffe://example.org/ns/dev/**]
    tcp: {port: any}
  - name: admin-is-breakglass-only
    from: [anyone]
    except: [spiffe://example.org/ns/ops/sa/breakglass]
    $refused
guarantees:
  - never: {from: [unauthenticated]}
END
}

granting() {
  local granted="http: {port: $PAIR_IN_PORT, methods: [GET, POST], paths: [/, /echo/**]}"
  if [ "$1" = tcp ]; then granted="tcp: {port: $PAIR_IN_PORT}"; fi
  cat <<END
vouchsafe: policy/v1
name: web
protects: $(spiffe_id server)
allow:
  - name: client-calls
    from: ["$(spiffe_id client)"]
    $granted
END
}

spiffe_id() {
  echo "spiffe://example.org/ns/default/sa/$1"
}

main "$@"
