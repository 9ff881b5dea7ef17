//! Bounded mutation of patch documents, with a fixed seed: no panic, and every result is JSON within its limits.

use inflightkv_core::{PatchKind, PatchLimits, merge};

const STORED: [&str; 3] = [
    r#"{"a":{"b":[1,2,{"c":null}]},"d":"x","a/b":0,"":[]}"#,
    r#"[[],{},"\u00e9",-1.5e3]"#,
    "null",
];

const PATCHES: [&str; 4] = [
    r#"{"a":{"b":null,"e":[1]},"d":null}"#,
    r#"[{"op":"add","path":"/a/b/-","value":{"x":1}},{"op":"remove","path":"/d"}]"#,
    r#"[{"op":"test","path":"/a~1b","value":0},{"op":"copy","from":"/a","path":"/d/0"}]"#,
    r#"[{"op":"move","from":"/a/b/2","path":"/a/b/0"},{"op":"replace","path":"","value":[[]]}]"#,
];

#[test]
fn mutated_patches_make_json_or_nothing() {
    let seed = 0x9A7C4;
    let mut random = fastrand::Rng::with_seed(seed);
    let limits = PatchLimits {
        value_bytes_max: 4096,
        depth_max: 32,
        inline_max: 4096,
    };
    let (mut read, mut made) = (0, 0);
    for case in 0..60_000 {
        let mut patch = PATCHES[random.usize(..PATCHES.len())].as_bytes().to_vec();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..patch.len());
            let other = PATCHES[random.usize(..PATCHES.len())].as_bytes();
            let from = random.usize(..other.len());
            let piece = &other[from..(from + random.usize(1..10)).min(other.len())];
            match random.u8(..3) {
                0 => patch[at] = other[from],
                1 => {
                    patch.splice(at..at, piece.iter().copied());
                }
                _ => {
                    let end = (at + piece.len()).min(patch.len());
                    patch.splice(at..end, piece.iter().copied());
                }
            }
        }
        // Patches are valid JSON by the time they are applied; what they say is anybody's.
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(&patch) else {
            continue;
        };
        read += 1;
        let patch = value.to_string();
        for stored in STORED {
            for kind in [PatchKind::Shallow, PatchKind::Merge, PatchKind::Json] {
                let result =
                    merge::patched(kind, Some(stored.as_bytes()), patch.as_bytes(), &limits);
                let Ok(result) = result else { continue };
                made += 1;
                assert!(result.len() <= limits.value_bytes_max);
                let parsed = serde_json::from_slice::<serde_json::Value>(&result);
                assert!(
                    parsed.is_ok(),
                    "seed {seed:#x}, case {case}: {patch} on {stored}"
                );
            }
        }
    }
    assert!(
        read > 5_000 && made > 5_000,
        "{read} patches, {made} results"
    );
}
