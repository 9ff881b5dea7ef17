//! A stored document and, after a NUL, a patch of every kind.
#![no_main]

use inflightkv_core::{PatchKind, PatchLimits, merge};
use inflightkv_validation::{Limits, check, minified};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some(at) = input.iter().position(|byte| *byte == 0) else {
        return;
    };
    let limits = Limits::default();
    let (stored, patch) = (&input[..at], &input[at + 1..]);
    let (Ok((stored, _)), Ok((patch, _))) = (minified(stored, &limits), minified(patch, &limits))
    else {
        return;
    };
    let bounds = PatchLimits {
        value_bytes_max: 1 << 20,
        depth_max: 128,
        inline_max: 4096,
    };
    for kind in [PatchKind::Shallow, PatchKind::Merge, PatchKind::Json] {
        if let Ok(result) = merge::patched(kind, Some(&stored), &patch, &bounds) {
            let summary = check(&result, &limits).expect("a result is JSON within its limits");
            assert!(summary.already_minified);
        }
    }
});
