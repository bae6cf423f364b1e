//! Audit logs: any bytes are read to their end, and every record in them is written so that it reads the same.
#![no_main]

use audit::{
    chain::{Link, verify},
    read::{Field, Filter, Groups, parse, row, stream},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: fuzz::accepts(include_bytes!("../seeds/audit_log/records"), &check), |bytes: &[u8]| {
    check(bytes);
});

/// Reads a log; says whether every line of it is a record.
fn check(bytes: &[u8]) -> bool {
    let mut groups = Groups::by(vec![Field::From, Field::Reason]);
    let (mut found, mut records) = (0, 0);
    for item in stream("log", bytes) {
        found += 1;
        let mut record = match item {
            Err(problem) => {
                assert!(!problem.to_string().is_empty());
                continue;
            }
            Ok(entry) => entry.record,
        };
        records += 1;
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
    found > 0 && records == found
}
