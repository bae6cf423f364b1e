//! How much is under way for one service, and whether more may be.

use super::settings::Breakers;

/// What is under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct UnderWay {
    connections: u32,
    pending: u32,
    requests: u32,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// A connection that is being made or open.
    Connection,
    /// A connection that is being made.
    Pending,
    /// A request without a whole response.
    Request,
}

impl Load {
    /// Returns the limit's name in the configuration, in metrics and in answers.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connections",
            Self::Pending => "pending",
            Self::Request => "requests",
        }
    }
}

impl UnderWay {
    /// Adds one, where the limit leaves room for it.
    pub(super) fn add(&mut self, load: Load, limits: &Breakers) -> Result<(), Load> {
        let (count, limit) = match load {
            Load::Connection => (&mut self.connections, limits.connections),
            Load::Pending => (&mut self.pending, limits.pending),
            Load::Request => (&mut self.requests, limits.requests),
        };
        if *count >= limit {
            return Err(load);
        }
        *count += 1;
        Ok(())
    }

    pub(super) fn end(&mut self, load: Load) {
        let count = match load {
            Load::Connection => &mut self.connections,
            Load::Pending => &mut self.pending,
            Load::Request => &mut self.requests,
        };
        *count = count.saturating_sub(1);
    }

    pub(super) fn count(&self, load: Load) -> u32 {
        match load {
            Load::Connection => self.connections,
            Load::Pending => self.pending,
            Load::Request => self.requests,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_than_the_limit_is_refused_until_one_ends() {
        let limits = Breakers { connections: 2, pending: 1, requests: 3 };
        let mut under_way = UnderWay::default();
        let mut add = |load| under_way.add(load, &limits);

        assert_eq!([Load::Connection; 3].map(&mut add), [Ok(()), Ok(()), Err(Load::Connection)]);
        assert_eq!([Load::Pending; 2].map(&mut add), [Ok(()), Err(Load::Pending)]);
        assert_eq!([Load::Request; 3].map(&mut add), [Ok(()); 3]);
        under_way.end(Load::Connection);

        assert_eq!(under_way.add(Load::Connection, &limits), Ok(()));
        assert_eq!(under_way.count(Load::Request), 3);
    }
}
