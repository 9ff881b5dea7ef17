//! A rule file, and after a NUL a document that is held against it.
#![no_main]

use inflightkv_validation::{Candidate, Limits, Rules, check};
use libfuzzer_sys::fuzz_target;
use std::io;

fuzz_target!(|input: &[u8]| {
    let end = input.iter().position(|byte| *byte == 0);
    let (text, document) = input.split_at(end.unwrap_or(input.len()));
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let read = |_: &str| Err(io::Error::from(io::ErrorKind::NotFound));
    match Rules::parse(text, &read) {
        Err(error) => assert!(error.line >= 1 && error.line <= text.lines().count() + 1),
        Ok(rules) => {
            let _ = rules.check_key("user/1");
            let document = document.get(1..).unwrap_or_default();
            if check(document, &Limits::default()).is_ok() {
                let _ = rules.check_value("user/1", &Candidate::json(document));
            }
        }
    }
});
