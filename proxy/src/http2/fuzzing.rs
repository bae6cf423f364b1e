//! What fuzz targets reach of this module: the head of a request as policy sees it and as it goes on.

use http::{Uri, request::Parts};

use super::head;
use crate::http1::{Flaw, HeadLimits};

/// What policy and the upstream see of a request.
#[derive(Debug)]
pub struct Forwarded {
    /// The host, with its port.
    pub authority: String,
    /// The path; empty for a tunnel.
    pub path: String,
    /// The target that goes on.
    pub target: Uri,
}

/// Reads a head that the library let through, with at most so many bytes and fields.
///
/// # Errors
/// The flaw's code, as the audit record carries it.
pub fn read(mut parts: Parts, bytes: usize, count: usize) -> Result<Forwarded, &'static str> {
    let line = head::read(&mut parts, HeadLimits { bytes, count }).map_err(Flaw::code)?;
    let request = head::forwarded(parts, &line).map_err(Flaw::code)?;
    let target = request.uri().clone();
    Ok(Forwarded { authority: line.authority().to_owned(), path: line.path().to_owned(), target })
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_policy_sees_is_what_goes_on(
            host in "[a-zA-Z0-9.:@-]{1,20}", path in "/[ -~]{0,30}", beside in proptest::option::of("[a-z0-9.:]{1,20}"),
        ) {
            let Ok(mut request) = Request::get(format!("http://{host}{path}")).body(()) else { return Ok(()) };
            if let Some(Ok(value)) = beside.map(HeaderValue::try_from) {
                request.headers_mut().insert("host", value);
            }
            let Ok(seen) = read(request.into_parts().0, 4096, 10) else { return Ok(()) };

            prop_assert_eq!(seen.target.authority().unwrap().as_str(), &seen.authority);
            prop_assert_eq!(seen.target.path(), &seen.path);
        }
    }
}
