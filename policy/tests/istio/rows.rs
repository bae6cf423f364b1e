//! The table: a file of the test data, the accesses, and what becomes of each.

use crate::asking::Mode::{self, Both, Differs};

/// What one file means.
pub(crate) struct Row {
    pub(crate) file: &'static str,
    pub(crate) accesses: &'static [(&'static str, Mode)],
    /// The file is refused in ambient mode.
    pub(crate) sidecars_only: bool,
}

const fn row(file: &'static str, accesses: &'static [(&'static str, Mode)]) -> Row {
    Row { file, accesses, sidecars_only: false }
}

const fn sidecars_only(file: &'static str, accesses: &'static [(&'static str, Mode)]) -> Row {
    Row { file, accesses, sidecars_only: true }
}

pub(crate) const ROWS: &[Row] = &[
    row("scope-root", &[("web tcp 8080", Both("explicit_deny")), ("web GET 8080 /", Both("explicit_deny"))]),
    row("scope-namespace", &[("web tcp 8080", Both("allow"))]),
    row("scope-selector", &[("web tcp 8080", Both("allow"))]),
    row("scope-root-selector", &[("web tcp 8080", Both("explicit_deny"))]),
    row(
        "scope-pool",
        &[
            ("web tcp 9000", Both("explicit_deny")),
            ("web tcp 8080", Both("allow")),
            ("web tcp 7000", Both("allow")),
            ("web tcp 1", Both("no_allow_matched")),
            ("- tcp 1", Both("unauthenticated")),
        ],
    ),
    row(
        "order-deny-beats-allow",
        &[
            ("web tcp 8080", Both("explicit_deny")),
            ("app tcp 8080", Both("allow")),
            ("- GET 8080 /", Both("allow")),
        ],
    ),
    row(
        "order-no-allow",
        &[
            ("- tcp 8080", Both("allow")),
            ("- tcp 9000", Both("explicit_deny")),
            ("- GET 9000 /", Both("explicit_deny")),
        ],
    ),
    row("order-audit", &[("- tcp 8080", Both("allow")), ("- GET 8080 /", Both("allow"))]),
    row(
        "order-audit-beside-allow",
        &[("- tcp 8080", Both("allow")), ("- tcp 9000", Both("unauthenticated"))],
    ),
    row(
        "empty-spec",
        &[("web tcp 8080", Both("no_allow_matched")), ("- GET 8080 /", Both("unauthenticated"))],
    ),
    row(
        "empty-allow",
        &[("web tcp 8080", Both("no_allow_matched")), ("- GET 8080 /", Both("unauthenticated"))],
    ),
    row(
        "empty-rules",
        &[("web tcp 8080", Both("no_allow_matched")), ("- GET 8080 /", Both("unauthenticated"))],
    ),
    row(
        "empty-rule-allow",
        &[("- tcp 1", Both("allow")), ("- GET 1 /", Both("allow")), ("web POST 1 /", Both("allow"))],
    ),
    row("empty-rule-deny", &[("- tcp 1", Both("explicit_deny")), ("web GET 1 /", Both("explicit_deny"))]),
    row(
        "omitted-from",
        &[
            ("- tcp 8080", Both("allow")),
            ("web GET 8080 /", Both("allow")),
            ("- tcp 9000", Both("unauthenticated")),
        ],
    ),
    row(
        "omitted-to",
        &[
            ("web tcp 1", Both("allow")),
            ("web DELETE 1 /x", Both("allow")),
            ("app tcp 1", Both("no_allow_matched")),
        ],
    ),
    row("omitted-action", &[("- tcp 8080", Both("allow")), ("- tcp 9000", Both("unauthenticated"))]),
    row(
        "structure",
        &[
            ("web GET 8080 /a h.x-tenant=blue h.x-stage=live", Differs("allow", "no_allow_matched")),
            ("app POST 8080 /b h.x-tenant=blue h.x-stage=live", Differs("allow", "no_allow_matched")),
            (
                "cluster.local/ns/batch/sa/x POST 8080 /b h.x-tenant=green h.x-stage=live",
                Differs("allow", "no_allow_matched"),
            ),
            ("web GET 8080 /b h.x-tenant=blue h.x-stage=live", Both("no_allow_matched")),
            ("web GET 8080 /a h.x-tenant=red h.x-stage=live", Both("no_allow_matched")),
            ("web GET 8080 /a h.x-tenant=blue", Both("no_allow_matched")),
            ("api GET 8080 /a h.x-tenant=blue h.x-stage=live", Both("no_allow_matched")),
            ("api GET 9000 /x", Both("allow")),
            ("- tcp 9000", Both("allow")),
        ],
    ),
    row(
        "structure-field-and-not",
        &[
            ("web GET 8080 /v1/x", Differs("allow", "no_allow_matched")),
            ("web GET 8080 /v1/admin/x", Both("no_allow_matched")),
            ("web GET 8080 /v2", Both("no_allow_matched")),
        ],
    ),
    row(
        "match-exact",
        &[
            ("- GET 8080 /info", Differs("allow", "unauthenticated")),
            ("- GET 8080 /info?x=1", Differs("allow", "unauthenticated")),
            ("- GET 8080 /info/", Both("unauthenticated")),
            ("- GET 8080 /Info", Both("unauthenticated")),
        ],
    ),
    row(
        "match-prefix",
        &[
            ("- GET 8080 /info", Differs("allow", "unauthenticated")),
            ("- GET 8080 /information", Differs("allow", "unauthenticated")),
            ("- GET 8080 /x/info", Both("unauthenticated")),
        ],
    ),
    row(
        "match-suffix",
        &[
            ("- GET 8080 /a/b.png", Differs("allow", "unauthenticated")),
            ("- GET 8080 /a.png/x", Both("unauthenticated")),
        ],
    ),
    row(
        "match-presence",
        &[
            ("- GET 8080 / h.x-token=a", Differs("allow", "unauthenticated")),
            ("- GET 8080 / h.X-Token=a", Differs("allow", "unauthenticated")),
            ("- GET 8080 / h.x-token=", Differs("allow", "unauthenticated")),
            ("- GET 8080 /", Both("unauthenticated")),
        ],
    ),
    row(
        "match-case",
        &[
            ("- get 8080 /Info host=api.EXAMPLE", Differs("allow", "unauthenticated")),
            ("- GET 8080 /Info host=api.example", Both("unauthenticated")),
            ("- get 8080 /info host=api.example", Both("unauthenticated")),
        ],
    ),
    row(
        "principals-exact",
        &[
            ("web tcp 1", Both("allow")),
            ("web GET 1 /", Both("allow")),
            ("webby tcp 1", Both("no_allow_matched")),
            ("other.test/ns/shop/sa/web tcp 1", Both("no_allow_matched")),
            ("cluster.local/ns/shop/sa/web/x tcp 1", Both("no_allow_matched")),
            ("- tcp 1", Both("unauthenticated")),
        ],
    ),
    row(
        "principals-prefix",
        &[
            ("web tcp 1", Both("allow")),
            ("cluster.local/ns/shop/x tcp 1", Both("allow")),
            ("cluster.local/ns/shopping/sa/web tcp 1", Both("no_allow_matched")),
        ],
    ),
    row(
        "principals-suffix",
        &[
            ("web tcp 1", Both("allow")),
            ("other.test/ns/x/sa/web tcp 1", Both("allow")),
            ("app tcp 1", Both("no_allow_matched")),
            ("- tcp 1", Both("unauthenticated")),
        ],
    ),
    row(
        "principals-presence",
        &[
            ("other.test/x tcp 1", Both("allow")),
            ("- tcp 1", Both("unauthenticated")),
            ("- GET 1 /", Both("unauthenticated")),
        ],
    ),
    row(
        "namespaces",
        &[
            ("web tcp 1", Both("allow")),
            ("other.test/ns/shop/sa/x tcp 1", Both("allow")),
            ("a.test/x/ns/shop/y tcp 1", Differs("allow", "no_allow_matched")),
            ("a.test/ns/shopping/sa/x tcp 1", Both("no_allow_matched")),
            ("a.test/ns/shop tcp 1", Both("no_allow_matched")),
            ("- tcp 1", Both("unauthenticated")),
        ],
    ),
    row(
        "namespaces-star",
        &[
            ("web tcp 1", Differs("allow", "no_allow_matched")),
            ("a.test/ns/sheep/sa/x tcp 1", Differs("allow", "no_allow_matched")),
            ("a.test/ns/shops/sa/x tcp 1", Both("no_allow_matched")),
        ],
    ),
    row(
        "service-accounts",
        &[
            ("cluster.local/ns/batch/sa/web tcp 1", Both("allow")),
            ("other.test/ns/batch/sa/web tcp 1", Both("allow")),
            ("own tcp 1", Both("allow")),
            ("a.test/ns/batch/x/y/sa/web tcp 1", Differs("allow", "no_allow_matched")),
            ("a.test/ns/batch/sa/web/v/2 tcp 1", Differs("allow", "no_allow_matched")),
            ("a.test/ns/batch/sa/webby tcp 1", Both("no_allow_matched")),
            ("web tcp 1", Both("no_allow_matched")),
            ("- tcp 1", Both("unauthenticated")),
        ],
    ),
    sidecars_only(
        "trust-domains",
        &[
            ("partner.test/x tcp 1", Both("allow")),
            ("partner.test.evil/x tcp 1", Both("no_allow_matched")),
            ("web tcp 1", Both("no_allow_matched")),
            ("- tcp 1", Both("unauthenticated")),
        ],
    ),
    sidecars_only(
        "trust-domains-star",
        &[
            ("a.test/x tcp 1", Both("allow")),
            ("a.b.test/x tcp 1", Both("allow")),
            ("a.test.x/y tcp 1", Both("no_allow_matched")),
        ],
    ),
    row(
        "request-principals",
        &[
            (
                "- GET 1 / jwt={\"iss\":\"https://login.example/a\",\"sub\":\"u-1\"}",
                Differs("allow", "unauthenticated"),
            ),
            ("- GET 1 / jwt={\"iss\":\"https://login.example\",\"sub\":\"a/u-1\"}", Both("unauthenticated")),
            ("- GET 1 / jwt={\"iss\":\"https://login.example/a\",\"sub\":\"u-2\"}", Both("unauthenticated")),
            ("- GET 1 /", Both("unauthenticated")),
        ],
    ),
    row(
        "request-principals-star",
        &[
            ("- GET 1 / jwt={\"iss\":\"x\",\"sub\":\"y\"}", Differs("allow", "unauthenticated")),
            ("- GET 1 / jwt={\"iss\":\"x\"}", Both("unauthenticated")),
            ("- GET 1 / jwt={\"iss\":\"x\",\"sub\":\"\"}", Both("unauthenticated")),
            ("- GET 1 /", Both("unauthenticated")),
        ],
    ),
    row(
        "request-principals-issuer",
        &[
            (
                "- GET 1 / jwt={\"iss\":\"https://login.example/a\",\"sub\":\"u\"}",
                Differs("allow", "unauthenticated"),
            ),
            ("- GET 1 / jwt={\"iss\":\"https://login.example/b\",\"sub\":\"u\"}", Both("unauthenticated")),
        ],
    ),
    row(
        "request-principals-suffix",
        &[
            (
                "- GET 1 / jwt={\"iss\":\"https://login.example\",\"sub\":\"u-1\"}",
                Differs("allow", "unauthenticated"),
            ),
            ("- GET 1 / jwt={\"iss\":\"https://login.example\",\"sub\":\"u-2\"}", Both("unauthenticated")),
            ("- GET 1 / jwt={\"iss\":\"https://login.test\",\"sub\":\"u-1\"}", Both("unauthenticated")),
        ],
    ),
    row(
        "claims",
        &[
            (
                "- GET 1 / jwt={\"iss\":\"i\",\"sub\":\"s\",\"groups\":\"admin\"}",
                Differs("allow", "unauthenticated"),
            ),
            (
                "- GET 1 / jwt={\"iss\":\"i\",\"sub\":\"s\",\"groups\":[\"x\",\"admin\"]}",
                Differs("allow", "unauthenticated"),
            ),
            (
                "- GET 1 / jwt={\"iss\":\"i\",\"sub\":\"s\",\"groups\":\"administrator\"}",
                Both("unauthenticated"),
            ),
            ("- GET 1 / jwt={\"iss\":\"i\",\"sub\":\"s\",\"groups\":{\"admin\":1}}", Both("unauthenticated")),
            ("- GET 1 / jwt={\"iss\":\"i\",\"sub\":\"s\",\"group\":\"admin\"}", Both("unauthenticated")),
        ],
    ),
    row(
        "claims-nested",
        &[
            (
                "- GET 1 / jwt={\"iss\":\"i\",\"sub\":\"s\",\"realm\":{\"roles\":[\"user\",\"admin\"]}}",
                Differs("allow", "unauthenticated"),
            ),
            (
                "- GET 1 / jwt={\"iss\":\"i\",\"sub\":\"s\",\"realm\":{\"roles\":\"adm\"}}",
                Differs("allow", "unauthenticated"),
            ),
            ("- GET 1 / jwt={\"iss\":\"i\",\"sub\":\"s\",\"realm\":[\"admin\"]}", Both("unauthenticated")),
            ("- GET 1 / jwt={\"iss\":\"i\",\"sub\":\"s\",\"roles\":\"admin\"}", Both("unauthenticated")),
        ],
    ),
    row(
        "claims-scope",
        &[
            (
                "- GET 1 / jwt={\"iss\":\"i\",\"sub\":\"s\",\"scope\":\"write\\u0020read\"}",
                Differs("allow", "unauthenticated"),
            ),
            ("- GET 1 / jwt={\"iss\":\"i\",\"sub\":\"s\",\"scope\":\"reader\"}", Both("unauthenticated")),
        ],
    ),
    row(
        "claims-plain-text",
        &[
            (
                "- GET 1 / jwt={\"iss\":\"i\",\"sub\":\"s\",\"title\":\"read\\u0020write\"}",
                Both("unauthenticated"),
            ),
            (
                "- GET 1 / jwt={\"iss\":\"i\",\"sub\":\"s\",\"title\":\"read\"}",
                Differs("allow", "unauthenticated"),
            ),
        ],
    ),
    row(
        "audiences",
        &[
            (
                "- GET 1 / jwt={\"iss\":\"i\",\"sub\":\"s\",\"aud\":\"shop.example\"}",
                Differs("allow", "unauthenticated"),
            ),
            (
                "- GET 1 / jwt={\"iss\":\"i\",\"sub\":\"s\",\"aud\":[\"x\",\"shop.example\"]}",
                Differs("allow", "unauthenticated"),
            ),
            ("- GET 1 / jwt={\"iss\":\"i\",\"sub\":\"s\",\"aud\":\"x\"}", Both("unauthenticated")),
        ],
    ),
    row(
        "presenter",
        &[
            (
                "- GET 1 / jwt={\"iss\":\"i\",\"sub\":\"s\",\"azp\":\"spa.example\"}",
                Differs("allow", "unauthenticated"),
            ),
            ("- GET 1 / jwt={\"iss\":\"i\",\"sub\":\"s\",\"azp\":\"x\"}", Both("unauthenticated")),
        ],
    ),
    row(
        "when-request-principal",
        &[
            (
                "- GET 1 / jwt={\"iss\":\"https://login.example/a\",\"sub\":\"u-1\"}",
                Differs("allow", "unauthenticated"),
            ),
            ("- GET 1 /", Both("unauthenticated")),
        ],
    ),
    row("when-principal", &[("web tcp 1", Both("allow")), ("app tcp 1", Both("no_allow_matched"))]),
    row(
        "when-namespace",
        &[
            ("other.test/ns/shop/sa/x tcp 1", Both("allow")),
            ("a.test/ns/x/sa/x tcp 1", Both("no_allow_matched")),
        ],
    ),
    row(
        "when-service-account",
        &[("other.test/ns/shop/sa/web tcp 1", Both("allow")), ("app tcp 1", Both("no_allow_matched"))],
    ),
    sidecars_only(
        "when-trust-domain",
        &[("partner.test/x tcp 1", Both("allow")), ("web tcp 1", Both("no_allow_matched"))],
    ),
    row(
        "when-source-ip",
        &[
            ("- tcp 1 ip=10.1.2.3", Both("allow")),
            ("- tcp 1 ip=::ffff:10.1.2.3", Both("allow")),
            ("- tcp 1 ip=10.2.2.3", Both("unauthenticated")),
        ],
    ),
    row(
        "when-destination-ip",
        &[
            ("- tcp 1 to=10.9.0.1", Both("allow")),
            ("- tcp 1 to=10.9.0.2", Both("unauthenticated")),
            ("- tcp 1", Both("unauthenticated")),
        ],
    ),
    row("when-destination-port", &[("- tcp 8080", Both("allow")), ("- tcp 8081", Both("unauthenticated"))]),
    row(
        "when-sni",
        &[
            ("- tcp 1 sni=a.shop.example", Differs("allow", "unauthenticated")),
            ("- tcp 1 sni=shop.example", Both("unauthenticated")),
            ("- tcp 1", Both("unauthenticated")),
        ],
    ),
    row(
        "when-not-sni",
        &[("- tcp 1", Differs("allow", "unauthenticated")), ("- tcp 1 sni=x", Both("unauthenticated"))],
    ),
    row(
        "hosts",
        &[
            ("- GET 1 / host=api.example", Differs("allow", "unauthenticated")),
            ("- GET 1 / host=API.example", Differs("allow", "unauthenticated")),
            ("- GET 1 / host=api.example:8080", Both("unauthenticated")),
            ("- GET 1 /", Both("unauthenticated")),
        ],
    ),
    row(
        "hosts-any-port",
        &[
            ("- GET 1 / host=api.example", Differs("allow", "unauthenticated")),
            ("- GET 1 / host=api.example:8080", Differs("allow", "unauthenticated")),
            ("- GET 1 / host=api.example.evil", Both("unauthenticated")),
        ],
    ),
    row(
        "not-hosts",
        &[
            ("- GET 1 / host=api.example", Both("unauthenticated")),
            ("- GET 1 / host=api.example:8080", Differs("allow", "unauthenticated")),
            ("- GET 1 /", Differs("allow", "unauthenticated")),
        ],
    ),
    row(
        "ports",
        &[
            ("- tcp 8080", Both("allow")),
            ("- GET 65535 /", Both("allow")),
            ("- tcp 8081", Both("unauthenticated")),
        ],
    ),
    row(
        "not-ports",
        &[
            ("- tcp 8080", Both("unauthenticated")),
            ("- tcp 8081", Both("allow")),
            ("- GET 8081 /", Both("allow")),
        ],
    ),
    row(
        "methods",
        &[
            ("- GET 1 /", Differs("allow", "unauthenticated")),
            ("- POST 1 /", Differs("allow", "unauthenticated")),
            ("- PUT 1 /", Differs("allow", "unauthenticated")),
            ("- get 1 /", Both("unauthenticated")),
            ("- DELETE 1 /", Both("unauthenticated")),
        ],
    ),
    row(
        "paths-one",
        &[
            ("- GET 1 /store/7/cart", Differs("allow", "unauthenticated")),
            ("- GET 1 /store//cart", Both("unauthenticated")),
            ("- GET 1 /store/7/8/cart", Both("unauthenticated")),
            ("- GET 1 /store/cart", Both("unauthenticated")),
        ],
    ),
    row(
        "paths-rest",
        &[
            ("- GET 1 /store/", Differs("allow", "unauthenticated")),
            ("- GET 1 /store/a/b", Differs("allow", "unauthenticated")),
            ("- GET 1 /store", Both("unauthenticated")),
            ("- GET 1 /stores/a", Both("unauthenticated")),
        ],
    ),
    row(
        "paths-rest-middle",
        &[
            ("- GET 1 /store/a/b/cart", Differs("allow", "unauthenticated")),
            ("- GET 1 /store//cart", Differs("allow", "unauthenticated")),
            ("- GET 1 /store/cart", Both("unauthenticated")),
        ],
    ),
    row(
        "paths-grpc",
        &[
            ("- POST 1 /shop.v1.Orders/Place", Differs("allow", "unauthenticated")),
            ("- POST 1 /shop.v1.Orders/Cancel", Both("unauthenticated")),
            ("- GET 1 /shop.v1.Orders/Place", Both("unauthenticated")),
        ],
    ),
    row(
        "headers-allow",
        &[
            ("- GET 1 / h.x-version=v1", Differs("allow", "unauthenticated")),
            ("- GET 1 / h.X-VERSION=v1", Differs("allow", "unauthenticated")),
            ("- GET 1 / h.x-version=V1", Both("unauthenticated")),
            ("- GET 1 / h.x-version=v1 h.x-version=v2", Both("unauthenticated")),
            ("- GET 1 / h.x-version=v1,v2", Both("unauthenticated")),
            ("- GET 1 /", Both("unauthenticated")),
        ],
    ),
    row(
        "headers-deny",
        &[
            ("- GET 1 / h.x-version=v1", Differs("explicit_deny", "allow")),
            ("- GET 1 / h.x-version=v2", Both("allow")),
            ("- GET 1 / h.x-version=v2 h.x-version=v1", Differs("explicit_deny", "allow")),
            ("- GET 1 / h.x-version=v2,v1", Differs("explicit_deny", "allow")),
            ("- GET 1 /", Both("allow")),
            ("- tcp 1", Differs("explicit_deny", "allow")),
        ],
    ),
    row(
        "headers-deny-not",
        &[
            ("- GET 1 / h.x-version=v1", Both("allow")),
            ("- GET 1 / h.x-version=v2", Differs("explicit_deny", "allow")),
            ("- GET 1 /", Differs("explicit_deny", "allow")),
            ("- GET 1 / h.x-version=v1 h.x-version=v2", Differs("explicit_deny", "allow")),
        ],
    ),
    row(
        "ip-blocks",
        &[
            ("- tcp 1 ip=10.1.2.3", Both("allow")),
            ("- tcp 1 ip=192.0.2.7", Both("allow")),
            ("- tcp 1 ip=192.0.2.8", Both("unauthenticated")),
        ],
    ),
    row(
        "not-ip-blocks",
        &[("- tcp 1 ip=10.1.2.3", Both("unauthenticated")), ("- tcp 1 ip=10.2.2.3", Both("allow"))],
    ),
    row("scheme-allow", &[("web tcp 1", Both("no_allow_matched"))]),
    row("scheme-deny", &[("web tcp 1", Both("allow"))]),
    row(
        "star-within",
        &[
            ("web GET 1 / host=api.x.example", Both("no_allow_matched")),
            ("cluster.local/ns/x/sa/web GET 1 /a/x/b host=api.x.example", Both("no_allow_matched")),
        ],
    ),
    row("star-within-principal", &[("web tcp 1", Both("no_allow_matched"))]),
    row("path-without-slash", &[("web GET 1 /info", Both("no_allow_matched"))]),
    row(
        "l4-allow-dropped",
        &[
            ("web tcp 9000", Both("no_allow_matched")),
            ("web GET 1 /", Differs("allow", "no_allow_matched")),
            ("web POST 9000 /", Differs("allow", "no_allow_matched")),
        ],
    ),
    row(
        "l4-allow-when",
        &[
            ("web tcp 1", Both("no_allow_matched")),
            ("web GET 1 / h.x=v1", Differs("allow", "no_allow_matched")),
        ],
    ),
    row(
        "l4-deny-narrowed",
        &[
            ("web tcp 8080", Both("explicit_deny")),
            ("web tcp 9000", Both("allow")),
            ("web POST 8080 /", Both("explicit_deny")),
            ("web GET 8080 /", Differs("allow", "explicit_deny")),
        ],
    ),
    row(
        "l4-deny-all",
        &[
            ("web tcp 1", Differs("explicit_deny", "allow")),
            ("web POST 1 /", Differs("explicit_deny", "allow")),
            ("web GET 1 /", Both("allow")),
        ],
    ),
    row(
        "l4-deny-from",
        &[
            ("web tcp 1", Differs("explicit_deny", "allow")),
            ("app tcp 1", Both("allow")),
            ("web POST 1 /", Differs("explicit_deny", "allow")),
            ("web GET 1 /", Both("allow")),
        ],
    ),
    row(
        "absent-not-namespaces",
        &[
            ("- tcp 1", Both("allow")),
            ("- GET 1 /", Both("allow")),
            ("cluster.local/ns/foo/sa/x tcp 1", Both("no_allow_matched")),
            ("web tcp 1", Both("allow")),
        ],
    ),
    row(
        "absent-not-principals",
        &[
            ("- tcp 1", Both("explicit_deny")),
            ("- GET 1 /", Both("explicit_deny")),
            ("web tcp 1", Both("allow")),
        ],
    ),
    row(
        "absent-not-request-principals",
        &[
            ("web GET 1 /", Differs("explicit_deny", "allow")),
            ("web GET 1 / jwt={\"iss\":\"i\",\"sub\":\"s\"}", Both("allow")),
        ],
    ),
    row(
        "absent-not-header",
        &[
            ("- GET 1 /", Differs("allow", "unauthenticated")),
            ("- GET 1 / h.x-debug=1", Both("unauthenticated")),
        ],
    ),
    row(
        "absent-not-claim",
        &[
            ("- GET 1 /", Differs("allow", "unauthenticated")),
            ("- GET 1 / jwt={\"iss\":\"i\",\"sub\":\"s\",\"role\":\"guest\"}", Both("unauthenticated")),
            (
                "- GET 1 / jwt={\"iss\":\"i\",\"sub\":\"s\",\"role\":\"boss\"}",
                Differs("allow", "unauthenticated"),
            ),
        ],
    ),
    row("dry-run-deny", &[("web tcp 1", Both("allow, not explicit_deny"))]),
    row(
        "dry-run-allow",
        &[("web tcp 8080", Both("allow")), ("web tcp 1", Both("allow, not no_allow_matched"))],
    ),
    row("dry-run-false", &[("web tcp 1", Both("explicit_deny"))]),
    row("dry-run-beside", &[("web tcp 8080", Both("allow")), ("web tcp 9000", Both("no_allow_matched"))]),
    row(
        "peers-mesh-strict",
        &[
            ("- tcp 1", Both("explicit_deny")),
            ("- GET 1 /", Both("explicit_deny")),
            ("web tcp 1", Both("allow")),
        ],
    ),
    row("peers-namespace-over-mesh", &[("- tcp 1", Both("allow"))]),
    row("peers-workload-over-namespace", &[("- tcp 1", Both("explicit_deny")), ("web tcp 1", Both("allow"))]),
    row("peers-unset-inherits", &[("- tcp 1", Both("explicit_deny"))]),
    row("peers-oldest", &[("- tcp 1", Both("allow"))]),
    row(
        "peers-ports",
        &[
            ("- tcp 8080", Both("allow")),
            ("- tcp 9000", Both("explicit_deny")),
            ("- tcp 1", Both("explicit_deny")),
            ("- tcp 65535", Both("explicit_deny")),
            ("web tcp 1", Both("allow")),
        ],
    ),
    row("peers-strict-port", &[("- tcp 8080", Both("explicit_deny")), ("- tcp 1", Both("allow"))]),
    row("peers-root-selector", &[("- tcp 1", Both("allow"))]),
    row("peers-default", &[("- tcp 1", Both("allow"))]),
    row(
        "tokens",
        &[
            ("- GET 1 /", Both("allow")),
            ("- GET 1 / jwt={\"iss\":\"https://login.example\",\"sub\":\"s\"}", Both("allow")),
            ("- GET 1 / token=bad", Differs("jwt_invalid", "allow")),
            ("- tcp 1", Both("allow")),
        ],
    ),
    row(
        "tokens-required",
        &[
            ("- GET 1 /", Differs("explicit_deny", "allow")),
            ("- GET 1 / jwt={\"iss\":\"https://login.example\",\"sub\":\"s\"}", Both("allow")),
            ("- GET 1 / token=bad", Differs("jwt_invalid", "allow")),
        ],
    ),
    row("kubernetes", &[("web tcp 8080", Both("allow")), ("web tcp 1", Both("no_allow_matched"))]),
];
