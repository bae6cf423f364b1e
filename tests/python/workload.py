"""py-spiffe as a workload: fetches its SVID and bundles, then watches until it has seen a rotation.

Prints one JSON object; any failure ends it with a traceback. The agent's socket comes from
SPIFFE_ENDPOINT_SOCKET, the number of SVIDs to see from the first argument.
"""

import json
import sys
import threading

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from spiffe import WorkloadApiClient, X509Source

DEADLINE = 90


def signed_by(leaf, authorities):
    """Whether one of the authorities issued the leaf; raises when a signature is wrong."""
    for authority in authorities:
        if authority.subject == leaf.issuer:
            try:
                leaf.verify_directly_issued_by(authority)
                return True
            except Exception:  # another authority of the same name may have signed
                continue
    return False


def public(key):
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def watch(client, wanted):
    """Collects serial numbers from the stream until there are enough, or fails on the first error."""
    serials, problems, enough = [], [], threading.Event()

    def update(context):
        leaf = context.default_svid.leaf
        bundle = context.x509_bundle_set.get_bundle_for_trust_domain(context.default_svid.spiffe_id.trust_domain)
        if not signed_by(leaf, bundle.x509_authorities):
            problems.append("a pushed SVID is not signed by a pushed authority")
        if leaf.serial_number not in serials:
            serials.append(leaf.serial_number)
        if len(serials) >= wanted or problems:
            enough.set()

    def failed(error):
        problems.append(repr(error))
        enough.set()

    handle = client.stream_x509_contexts(update, failed)
    finished = enough.wait(DEADLINE)
    handle.cancel()
    if problems or not finished:
        raise SystemExit(f"the watch failed after {len(serials)} SVIDs: {problems or 'too slow'}")
    return serials


def main():
    with WorkloadApiClient() as client:
        svid = client.fetch_x509_svid()
        bundles = client.fetch_x509_bundles()
        authorities = bundles.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain).x509_authorities
        answer = {
            "id": str(svid.spiffe_id),
            "key_matches": public(svid.private_key.public_key()) == public(svid.leaf.public_key()),
            "signed": signed_by(svid.leaf, authorities),
            "serials": len(watch(client, int(sys.argv[1]))),
        }
    with X509Source() as source:
        answer["source"] = str(source.svid.spiffe_id)
    print(json.dumps(answer))


main()
