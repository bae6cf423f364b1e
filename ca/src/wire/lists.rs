//! Filters and pages of listings.

use proto::spire::api::{
    server::{agent::v1 as agent, entry::v1 as entry},
    types,
};
use tonic::Status;

use super::{any_id, id_to_wire, selectors, selectors_to_wire, set_match, trust_domains};
use crate::{
    model::{Selector, Standing},
    registry::{EntryFilter, Match, NodeFilter},
};

/// Takes the filter of an entry listing from the wire.
pub(crate) fn entry_filter(wire: Option<entry::list_entries_request::Filter>) -> Result<EntryFilter, Status> {
    let Some(wire) = wire else { return Ok(EntryFilter::default()) };
    let id = |id: Option<types::Spiffeid>| {
        id.map(|id| any_id(&id).map_err(|why| Status::invalid_argument(why.to_string()))).transpose()
    };
    let federates_with = wire.by_federates_with.map(|by| {
        let names = trust_domains(&by.trust_domains)?;
        Ok::<_, Status>((set_match(by.r#match)?, names.into_iter().collect()))
    });
    Ok(EntryFilter {
        spiffe_id: id(wire.by_spiffe_id)?,
        parent_id: id(wire.by_parent_id)?,
        selectors: wire.by_selectors.map(selector_filter).transpose()?,
        federates_with: federates_with.transpose()?,
        hint: wire.by_hint,
        downstream: wire.by_downstream,
    })
}

/// Puts the filter of an entry listing on the wire.
pub(crate) fn filter_to_wire(filter: &EntryFilter) -> entry::list_entries_request::Filter {
    entry::list_entries_request::Filter {
        by_spiffe_id: filter.spiffe_id.as_ref().map(id_to_wire),
        by_parent_id: filter.parent_id.as_ref().map(id_to_wire),
        by_selectors: filter.selectors.as_ref().map(|(how, selectors)| types::SelectorMatch {
            selectors: selectors_to_wire(selectors),
            r#match: match_to_wire(*how),
        }),
        by_federates_with: filter.federates_with.as_ref().map(|(how, names)| types::FederatesWithMatch {
            trust_domains: names.iter().map(ToString::to_string).collect(),
            r#match: match_to_wire(*how),
        }),
        by_hint: filter.hint.clone(),
        by_downstream: filter.downstream,
    }
}

fn match_to_wire(how: Match) -> i32 {
    use types::selector_match::MatchBehavior;
    let behaviour = match how {
        Match::Exact => MatchBehavior::MatchExact,
        Match::Subset => MatchBehavior::MatchSubset,
        Match::Superset => MatchBehavior::MatchSuperset,
        Match::Any => MatchBehavior::MatchAny,
    };
    behaviour.into()
}

/// Takes the filter of an agent listing from the wire.
pub(crate) fn node_filter(wire: Option<agent::list_agents_request::Filter>) -> Result<NodeFilter, Status> {
    let Some(wire) = wire else { return Ok(NodeFilter::default()) };
    let expires_before = match wire.by_expires_before.as_str() {
        "" => None,
        text => Some(expiry(text)?),
    };
    Ok(NodeFilter {
        attestor: Some(wire.by_attestation_type).filter(|attestor| !attestor.is_empty()),
        selectors: wire.by_selector_match.map(selector_filter).transpose()?,
        standing: wire.by_banned.map(|banned| if banned { Standing::Banned } else { Standing::Active }),
        can_reattest: wire.by_can_reattest,
        expires_before,
    })
}

/// SPIRE writes this time as `2006-01-02 15:04:05 -0700 -07`; RFC 3339 is taken as well.
fn expiry(text: &str) -> Result<i64, Status> {
    let spire = time::macros::format_description!(
        "[year]-[month]-[day] [hour]:[minute]:[second] [offset_hour sign:mandatory][offset_minute]"
    );
    let bare: String = text.splitn(4, ' ').take(3).collect::<Vec<_>>().join(" ");
    time::OffsetDateTime::parse(&bare, &spire)
        .or_else(|_| time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339))
        .map(time::OffsetDateTime::unix_timestamp)
        .map_err(|_| Status::invalid_argument("by_expires_before is not a time"))
}

fn selector_filter(by: types::SelectorMatch) -> Result<(Match, Vec<Selector>), Status> {
    if by.selectors.is_empty() {
        return Err(Status::invalid_argument("selectors to match are missing"));
    }
    Ok((set_match(by.r#match)?, selectors(by.selectors)?))
}

/// How many items a page has: what was asked for, within bounds; 0 leaves it to us.
pub(crate) fn page_size(asked: i32) -> Result<usize, Status> {
    match usize::try_from(asked) {
        Ok(0) => Ok(MAX_PAGE),
        Ok(asked) => Ok(asked.min(MAX_PAGE)),
        Err(_) => Err(Status::invalid_argument("page_size is negative")),
    }
}

/// Most items of one page.
const MAX_PAGE: usize = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_never_larger_than_the_limit() {
        assert_eq!(page_size(0).unwrap(), MAX_PAGE);
        assert_eq!(page_size(5).unwrap(), 5);
        assert_eq!(page_size(i32::MAX).unwrap(), MAX_PAGE);
        assert!(page_size(-1).is_err());
    }

    #[test]
    fn both_ways_of_writing_an_expiry_are_read() {
        assert_eq!(expiry("1970-01-01 01:00:00 +0000 UTC").unwrap(), 3600);
        assert_eq!(expiry("1970-01-01 01:00:00 -0100 -01").unwrap(), 7200);
        assert_eq!(expiry("1970-01-01T01:00:00Z").unwrap(), 3600);
        assert!(expiry("tomorrow").is_err());
    }
}
