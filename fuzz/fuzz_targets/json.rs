//! A document: what is accepted another reader accepts too, and minifying changes nothing that it reads.
#![no_main]

use inflightkv_validation::{Limits, check, minified};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let limits = Limits {
        depth_max: 100,
        bytes_max: 1 << 20,
    };
    let Ok(summary) = check(text, &limits) else {
        return;
    };
    let (kept, same) = minified(text, &limits).expect("it was accepted");
    assert_eq!(summary, same);
    assert_eq!(summary.minified_len, kept.len());
    // Numbers beyond a double are ours alone to keep.
    if let Ok(before) = serde_json::from_slice::<serde_json::Value>(text) {
        let after = serde_json::from_slice::<serde_json::Value>(&kept).expect("still JSON");
        assert_eq!(before, after);
    }
});
