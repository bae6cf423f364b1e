//! Which class and activity of OCSF a record is.

use crate::event::{Event, Kind, Lifecycle};

/// A class of OCSF and an activity in it.
#[derive(Clone, Copy)]
pub(super) struct Class {
    /// The class.
    pub(super) uid: u32,
    /// The activity, by the class's own numbering.
    pub(super) activity: u32,
}

impl Class {
    /// Returns what an event is.
    pub(super) fn of(event: &Event) -> Self {
        match (&event.kind, &event.http) {
            (Kind::Lifecycle(change), _) => Self {
                uid: APPLICATION_LIFECYCLE,
                activity: match change {
                    Lifecycle::Started => 3,
                    Lifecycle::Stopped => 4,
                    Lifecycle::PolicyChanged | Lifecycle::PolicyRefused | Lifecycle::IdentityRotated => OTHER,
                },
            },
            (Kind::Opened, _) => Self { uid: NETWORK, activity: 1 },
            (Kind::Closed(_), _) => Self { uid: NETWORK, activity: 2 },
            (Kind::Denied(_) | Kind::Allowed, Some(http)) => {
                Self { uid: HTTP, activity: method(&http.method) }
            }
            (Kind::Denied(_), None) => Self { uid: NETWORK, activity: 5 },
            (Kind::Allowed, None) => Self { uid: NETWORK, activity: 6 },
        }
    }

    /// Returns what a change of the log itself is.
    pub(super) fn of_change(what: &str) -> Self {
        let activity = match what {
            REMOVED => 2,
            ROTATED => 5,
            OPENED => 6,
            CLOSED => 7,
            _ => OTHER,
        };
        Self { uid: EVENT_LOG, activity }
    }
}

fn method(name: &str) -> u32 {
    match name {
        "CONNECT" => 1,
        "DELETE" => 2,
        "GET" => 3,
        "HEAD" => 4,
        "OPTIONS" => 5,
        "POST" => 6,
        "PUT" => 7,
        "TRACE" => 8,
        "PATCH" => 9,
        _ => OTHER,
    }
}

/// The first record of a start.
pub(crate) const OPENED: &str = "log_opened";
/// The last record of an orderly end.
pub(crate) const CLOSED: &str = "log_closed";
/// The first record of a file that follows another.
pub(crate) const ROTATED: &str = "log_rotated";
/// Says that an old file was removed.
pub(crate) const REMOVED: &str = "log_file_removed";
/// Says that events could not be written one by one, and are in the aggregates that follow.
pub(crate) const GAP: &str = "audit_gap";

const NETWORK: u32 = 4001;
const HTTP: u32 = 4002;
const APPLICATION_LIFECYCLE: u32 = 6002;
const EVENT_LOG: u32 = 1008;
const OTHER: u32 = 99;
