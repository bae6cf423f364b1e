//! What a block of accesses spans, in words: for people, who are shown one access of it.

use std::fmt;

use serde::Serialize;

use super::{ACT, Act, PATH, PEER, PORT, Space, at};
use crate::analyse::blocks::Block;
use crate::analyse::sets::AtomSet;

/// What else there is of the kind of one access: examples of each, at most [`MAX_EXAMPLES`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Extent {
    /// Callers.
    pub from: Vec<String>,
    /// Methods; `tcp`, `CONNECT`, and what is upgraded to.
    pub asks: Vec<String>,
    /// Ports.
    pub ports: Vec<String>,
    /// Paths.
    pub paths: Vec<String>,
}

impl Space {
    /// Tells what a block spans. A dimension without limits stays empty.
    pub(crate) fn extent(&self, block: &Block) -> Extent {
        let examples = |dimension: usize, text: &dyn Fn(u32) -> Option<String>| {
            let set = block.get(dimension);
            let size = self.sizes().get(dimension).copied().unwrap_or_default();
            if AtomSet::All.within(set) || set.atoms(size).count() == size {
                return Vec::new();
            }
            let mut texts: Vec<String> = set.atoms(size).filter_map(text).take(MAX_EXAMPLES).collect();
            texts.dedup();
            texts
        };
        Extent {
            from: examples(PEER, &|atom| {
                self.peers.text(atom).map(|text| text.unwrap_or_else(|| "unauthenticated".to_owned()))
            }),
            asks: examples(ACT, &|atom| self.acts.list.get(at(atom)).map(told)),
            ports: examples(PORT, &|atom| {
                let stretch = self.ports.stretches().get(at(atom))?;
                Some(match (stretch.low, stretch.high) {
                    (low, high) if low == high => low.to_string(),
                    (low, high) => format!("{low}-{high}"),
                })
            }),
            paths: examples(PATH, &|atom| self.paths.text(atom).flatten()),
        }
    }
}

fn told(act: &Act) -> String {
    match act {
        Act::Tcp => "tcp".to_owned(),
        Act::Plain(method) => method.clone(),
        Act::Connect => crate::access::CONNECT.to_owned(),
        Act::Upgrade { protocol, .. } => format!("upgrade to {protocol}"),
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lead = "";
        for (name, texts) in
            [("callers", &self.from), ("", &self.asks), ("ports", &self.ports), ("paths", &self.paths)]
        {
            if texts.is_empty() {
                continue;
            }
            let space = if name.is_empty() { "" } else { " " };
            write!(f, "{lead}{name}{space}{}", texts.join(" "))?;
            lead = ", ";
        }
        Ok(())
    }
}

/// Most examples of each kind.
pub const MAX_EXAMPLES: usize = 8;
