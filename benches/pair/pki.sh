#!/usr/bin/env bash
# Makes what all peers prove themselves with: pki.sh DIRECTORY. A P-256 authority and two leaves in the form of X.509-SVIDs
# (one URI name, no CA, digitalSignature), which peers that know nothing of SPIFFE accept as well.
set -euo pipefail

readonly TRUST_DOMAIN=example.org
readonly LEAST_SECONDS=7200

main() {
  mkdir -p "$1"
  cd "$1"
  if fresh; then return; fi
  authority
  leaf client
  leaf server
}

fresh() {
  local name
  for name in ca client server; do
    openssl x509 -in "$name.pem" -noout -checkend "$LEAST_SECONDS" >/dev/null 2>&1 || return 1
  done
}

authority() {
  new_key ca
  openssl req -x509 -new -key ca.key -sha256 -days 30 -subj "/O=pair/CN=pair authority" \
    -addext "basicConstraints=critical,CA:TRUE" \
    -addext "keyUsage=critical,keyCertSign,cRLSign" \
    -addext "subjectAltName=URI:spiffe://$TRUST_DOMAIN" -out ca.pem
}

# The DNS name is for peers that cannot match a URI name.
leaf() {
  new_key "$1"
  openssl req -new -key "$1.key" -subj "/O=pair" -out "$1.csr"
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 7 -sha256 -out "$1.pem" -extfile <(
    cat <<END
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth,clientAuth
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
subjectAltName=URI:spiffe://$TRUST_DOMAIN/ns/default/sa/$1,DNS:$1.test
END
  ) 2>/dev/null
  cat "$1.pem" "$1.key" >"$1.bundle.pem"
  chmod 600 "$1.bundle.pem"
}

new_key() {
  (umask 077 && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key" 2>/dev/null)
}

main "$@"
