//! How requests ended, by the class of their status: the counters are made once, so that counting costs one addition.

use http::StatusCode;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

use crate::http1::Outcome;

/// The counters of one proxy.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) family: Family<Ended, Counter>,
    cells: [[Counter; CLASSES.len()]; OUTCOMES.len()],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Ended {
    outcome: &'static str,
    status: &'static str,
}

impl Answers {
    pub(super) fn new() -> Self {
        let family = Family::<Ended, Counter>::default();
        let cell = |outcome: Outcome, status| {
            let ended = Ended { outcome: outcome.as_str(), status };
            family.get_or_create(&ended).clone()
        };
        let cells = OUTCOMES.map(|outcome| CLASSES.map(|class| cell(outcome, class)));
        Self { family, cells }
    }

    pub(super) fn count(&self, status: Option<StatusCode>, outcome: Outcome) {
        let class = status.map_or(0, |status| usize::from(status.as_u16() / 100));
        let row = OUTCOMES.iter().zip(&self.cells).find(|(known, _)| **known == outcome);
        if let Some(cell) = row.and_then(|(_, cells)| cells.get(class)) {
            cell.inc();
        }
    }
}

const OUTCOMES: [Outcome; 4] = [Outcome::Finished, Outcome::Broken, Outcome::Cut, Outcome::Refused];
/// By the first digit of a status; the first stands for no answer.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_is_counted_under_its_own_labels() {
        let answers = Answers::new();

        answers.count(Some(StatusCode::NO_CONTENT), Outcome::Finished);
        answers.count(Some(StatusCode::FORBIDDEN), Outcome::Refused);
        answers.count(None, Outcome::Cut);
        answers.count(StatusCode::from_u16(999).ok(), Outcome::Finished);

        let counted = |outcome, status| answers.family.get_or_create(&Ended { outcome, status }).get();
        assert_eq!(counted("finished", "2xx"), 1);
        assert_eq!(counted("refused", "4xx"), 1);
        assert_eq!(counted("cut", "none"), 1);
        assert_eq!(counted("finished", "5xx"), 0);
    }
}
