//! How the keys of token issuers are fetched.

use std::path::PathBuf;

use policy::strict::{Node, Reader};

use super::reading::present;

/// How the keys of token issuers are fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Jwt {
    /// PEM certificates of the authorities that vouch for those who publish keys; without it those of the host do.
    pub trust_anchors: Option<PathBuf>,
    /// Whether keys may come over plain HTTP, where anybody on the way can put their own in.
    pub danger_allow_http: bool,
}

pub(super) fn read(node: &Node, read: &mut Reader<'_>) -> Option<Jwt> {
    let mut map = read.map(node)?;
    let trust_anchors = map.optional("trust_anchors").map(|node| read.path(node));
    let danger_allow_http = map.optional("danger_allow_http").map(|node| read.boolean(node));
    map.finish(read);
    Some(Jwt {
        trust_anchors: present(trust_anchors)?,
        danger_allow_http: present(danger_allow_http)?.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use policy::strict::Source;

    use crate::Config;

    fn config(jwt: &str) -> Result<super::Jwt, String> {
        let text = format!(
            "vouchsafe: proxy/v1\npolicies: p\n{jwt}inbound:\n  - {{name: a, listen: 0.0.0.0:1, protocol: http, \
             application: 127.0.0.1:2}}\n"
        );
        let read = Config::parse(&Source::new("proxy.yaml", text));
        read.map(|config| config.jwt).map_err(|problems| problems.to_string())
    }

    #[test]
    fn keys_come_over_https_with_the_authorities_of_the_host_unless_told_otherwise() {
        assert_eq!(config(""), Ok(super::Jwt { trust_anchors: None, danger_allow_http: false }));
        assert_eq!(
            config("jwt: {trust_anchors: /etc/ca.pem, danger_allow_http: true}\n"),
            Ok(super::Jwt { trust_anchors: Some("/etc/ca.pem".into()), danger_allow_http: true })
        );
    }

    #[test]
    fn what_is_not_known_or_not_of_its_kind_is_refused() {
        for jwt in ["jwt: {allow_http: true}\n", "jwt: {danger_allow_http: 1}\n", "jwt: []\n"] {
            assert!(config(jwt).is_err(), "{jwt}");
        }
    }
}
