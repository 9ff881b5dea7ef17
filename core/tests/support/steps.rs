//! The steps of a random history, and how they are drawn.

use super::json::{Document, Json, document, json};
use inflightkv_core::Version;
use proptest::prelude::*;

/// Few, so that steps meet each other.
pub(crate) const KEYS: [&str; 8] = [
    "",
    "a",
    "b",
    "ab",
    "user/1",
    "user/2",
    "ключ",
    "a key that is a little longer",
];

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Put {
        key: usize,
        value: Json,
        opaque: bool,
        expiry: PutTtl,
        guard: Guard,
    },
    Patch {
        key: usize,
        document: Document,
        expiry: PatchTtl,
        guard: Guard,
        overtaken: bool,
    },
    Delete {
        key: usize,
        guard: Guard,
    },
    Evict {
        slot: usize,
    },
    Expire {
        slot: usize,
    },
    ExpireAll,
    Pass {
        ms: u64,
    },
    Freeze {
        incremental: bool,
    },
    Walk {
        budget: usize,
        stop_after: usize,
    },
    Thaw,
    Keep {
        keep: bool,
    },
    Recode {
        slot: usize,
        coded: bool,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum PutTtl {
    None,
    After(u64),
    Keep,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum PatchTtl {
    Keep,
    Clear,
    After(u64),
}

/// Conditions relative to what the key has, made absolute when their step comes.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub(crate) if_match: Option<Tags>,
    pub(crate) version: Option<Expected>,
    pub(crate) if_none_match: Option<Tags>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Tags {
    Any,
    Nothing,
    Present,
    /// The one the key had before its last change.
    Former,
    All,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Expected {
    Absent,
    Present,
    Is(Version),
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || 0..KEYS.len();
    let ttl = 1..40_u64;
    let put_ttl = prop_oneof![
        3 => Just(PutTtl::None),
        3 => ttl.clone().prop_map(PutTtl::After),
        2 => Just(PutTtl::Keep),
    ];
    let patch_ttl = prop_oneof![
        4 => Just(PatchTtl::Keep),
        1 => Just(PatchTtl::Clear),
        2 => ttl.prop_map(PatchTtl::After),
    ];
    let tags = || {
        let tags = vec![
            Tags::Any,
            Tags::Nothing,
            Tags::Present,
            Tags::Former,
            Tags::All,
        ];
        prop::option::weighted(0.15, prop::sample::select(tags).boxed())
    };
    let expected = prop_oneof![
        1 => Just(Expected::Absent),
        3 => Just(Expected::Present),
        1 => (0..3_u64).prop_map(Expected::Is),
    ];
    let guard = (tags(), prop::option::weighted(0.2, expected), tags())
        .prop_map(|(if_match, version, if_none_match)| Guard {
            if_match,
            version,
            if_none_match,
        })
        .boxed();
    let step = prop_oneof![
        12 => (key(), json(), prop::bool::weighted(0.15), put_ttl, guard.clone()).prop_map(
            |(key, value, opaque, expiry, guard)| Step::Put { key, value, opaque, expiry, guard }),
        10 => (key(), document(), patch_ttl, guard.clone(), prop::bool::weighted(0.2)).prop_map(
            |(key, document, expiry, guard, overtaken)| Step::Patch { key, document, expiry, guard, overtaken }),
        6 => (key(), guard).prop_map(|(key, guard)| Step::Delete { key, guard }),
        2 => key().prop_map(|slot| Step::Evict { slot }),
        4 => key().prop_map(|slot| Step::Expire { slot }),
        2 => Just(Step::ExpireAll),
        6 => (0..30_u64).prop_map(|ms| Step::Pass { ms }),
        3 => any::<bool>().prop_map(|incremental| Step::Freeze { incremental }),
        8 => (0..6_usize, 1..6_usize).prop_map(|(budget, stop_after)| Step::Walk { budget, stop_after }),
        2 => Just(Step::Walk { budget: 1_000, stop_after: 1_000 }),
        1 => Just(Step::Thaw),
        1 => prop::bool::weighted(0.8).prop_map(|keep| Step::Keep { keep }),
        10 => (key(), prop::bool::weighted(0.7)).prop_map(|(slot, coded)| Step::Recode { slot, coded }),
    ];
    prop::collection::vec(step, 1..80)
}
