//! Audit logs: any bytes are read to their end, and every record in them is written so that it reads the same.
#![no_main]

use audit::{
    chain::{Link, verify},
    read::{Field, Filter, Groups, parse, row, stream},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut groups = Groups::by(vec![Field::From, Field::Reason]);
    let mut found = 0;
    for item in stream("log", bytes) {
        found += 1;
        let mut record = match item {
            Err(problem) => {
                assert!(!problem.to_string().is_empty());
                continue;
            }
            Ok(entry) => entry.record,
        };
        assert!(row(&record).chars().all(|shown| !shown.is_control()));
        Filter::default().matches(&record);
        groups.add(&record);

        let line = audit::fuzzing::line(&mut record);

        let line = line.strip_suffix(b"\n").expect("a line");
        assert!(line.iter().all(|byte| !byte.is_ascii_control()));
        assert!(verify(line, Link::START).is_ok());
        match parse(line) {
            Ok(again) => assert_eq!(again, record),
            Err(_) => assert!(line.len() > audit::MAX_LINE),
        }
    }
    assert!(found <= bytes.split(|byte| *byte == b'\n').count());
});
