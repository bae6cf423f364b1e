//! How big a policy may be.

/// Longest name of a policy or rule.
pub const MAX_NAME: usize = 63;

/// Most entries of `protects`.
pub const MAX_PROTECTS: usize = 256;

/// Most rules in one policy, allow and deny together.
pub const MAX_RULES_PER_POLICY: usize = 10_000;

/// Most entries of `from` and of `except`.
pub const MAX_FROM: usize = 1_000;

/// Most entries of `source_net`.
pub const MAX_NETWORKS: usize = 256;

/// Most entries of `ports`.
pub const MAX_PORTS: usize = 128;

/// Most entries of `methods`.
pub const MAX_METHODS: usize = 32;

/// Most entries of `hosts`.
pub const MAX_HOSTS: usize = 256;

/// Most entries of `paths`.
pub const MAX_PATHS: usize = 1_000;

/// Most test cases in one policy.
pub const MAX_TESTS: usize = 1_000;

/// Most entries of `sni`.
pub const MAX_SERVER_NAMES: usize = 256;

/// Most entries of `services`.
pub const MAX_SERVICES: usize = 64;

/// Most entries of `protocols`.
pub const MAX_PROTOCOLS: usize = 16;

/// Most names under `headers`.
pub const MAX_HEADERS: usize = 16;

/// Most values of one header.
pub const MAX_HEADER_VALUES: usize = 64;

/// Most issuers in one policy.
pub const MAX_ISSUERS: usize = 16;

/// Most entries of `audiences`.
pub const MAX_AUDIENCES: usize = 16;

/// Most claims of one rule or test.
pub const MAX_CLAIMS: usize = 32;

/// Most values of one claim.
pub const MAX_CLAIM_VALUES: usize = 64;

/// Deepest nesting of claims.
pub const MAX_CLAIM_DEPTH: usize = 8;

/// Most guarantees in one policy.
pub const MAX_GUARANTEES: usize = 256;
