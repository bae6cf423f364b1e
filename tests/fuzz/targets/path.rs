//! Request paths: the accepted form is stable, holds nothing that two servers read differently, and is what goes out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::CanonicalPath;

fuzz_target!(|text: &str| {
    let Ok(path) = CanonicalPath::parse(text) else { return };
    let target = path.target();

    assert_eq!(CanonicalPath::parse(&target).as_ref(), Ok(&path));
    let shown = path.as_str();
    assert!(shown.starts_with('/') && !shown.contains("//"));
    assert!(shown.split('/').all(|segment| segment != "." && segment != ".."));
    assert!(!shown.contains([';', '\\', '?', '#']));
    let lower = shown.to_ascii_lowercase();
    for hidden in ["%00", "%2e", "%2f", "%3b", "%5c"] {
        assert!(!lower.contains(hidden), "{shown}");
    }
    // The library that writes the request changes nothing.
    let uri = http::Uri::try_from(&*target).expect("a target to hyper");
    assert_eq!((uri.path(), uri.query()), (shown, path.query()));
});
