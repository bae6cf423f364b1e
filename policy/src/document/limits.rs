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
