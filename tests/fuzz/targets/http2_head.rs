//! The head of an HTTP/2 request: what policy sees is what goes on, and reads the same again. A line each: authority, path,
//! then fields.
#![no_main]

use http::{HeaderName, HeaderValue, Request};
use libfuzzer_sys::fuzz_target;
use policy::{CanonicalHost, CanonicalPath};
use proxy::streams::read;

fuzz_target!(|text: &str| {
    let mut lines = text.lines();
    let (Some(authority), Some(path)) = (lines.next(), lines.next()) else { return };
    let Ok(mut request) = Request::get(format!("http://{authority}{path}")).body(()) else { return };
    for line in lines.take(MAX_FIELDS * 2) {
        let Some((name, value)) = line.split_once(':') else { continue };
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            request.headers_mut().append(name, value);
        }
    }
    let Ok(seen) = read(request.into_parts().0, MAX_HEAD, MAX_FIELDS) else { return };

    assert_eq!(seen.target.authority().expect("an authority").as_str(), seen.authority);
    assert_eq!(seen.target.path(), seen.path);
    assert_eq!(CanonicalHost::parse(&seen.authority).expect("a host").to_string(), seen.authority);
    let target = seen.target.path_and_query().expect("a path").as_str();
    assert_eq!(CanonicalPath::parse(target).expect("a path").target(), target);
});

const MAX_HEAD: usize = 4096;
const MAX_FIELDS: usize = 32;
