//! How histories are drawn: which steps, how often, and what a simpler one is like.

use super::faults::{Area, Call, Fault, Survival};
use super::history::{
    Coding, CodingMode, ConditionKind, Document, Durability, Edit, End, History, How, KEYS,
    Operation, Patch, Restore, RestoreHow, Setup, SnapshotKind, Step, Sync, Text, Trouble, Ttl,
    Write,
};
use proptest::prelude::*;
use proptest::sample::select;

fn text() -> impl Strategy<Value = Text> {
    let len = prop_oneof![
        34 => 0..60_u16,
        4 => 300..1_500_u16,
        // Beyond what an entry holds inline, and beyond what a patch computes under the lock.
        2 => 2_100..6_000_u16,
    ];
    (len, any::<u8>()).prop_map(|(len, salt)| Text { len, salt })
}

fn ttl() -> impl Strategy<Value = Ttl> {
    prop_oneof![
        4 => Just(Ttl::Clear),
        2 => Just(Ttl::Keep),
        2 => select(&[1, 5, 40, 300, 2_500, 60_000][..]).prop_map(Ttl::For),
    ]
}

fn document() -> impl Strategy<Value = Document> {
    prop_oneof![
        2 => (0..3_u8).prop_map(Document::Number),
        2 => (0..1000_u16, text()).prop_map(|(number, text)| Document::List(number, text)),
        8 => (0..1000_u16, text()).prop_map(|(number, text)| Document::Object(number, text)),
        3 => text().prop_map(Document::Opaque),
    ]
}

fn patch() -> impl Strategy<Value = Patch> {
    prop_oneof![
        (0..1000_u16, text()).prop_map(|(number, text)| Patch::Shallow(number, text)),
        (0..1000_u16).prop_map(Patch::MergeAndRemove),
        text().prop_map(Patch::MergeInto),
        (0..1000_u16).prop_map(Patch::AddAndRemove),
        (0..1000_u16).prop_map(Patch::ReplaceAndTest),
    ]
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        10 => (document(), ttl()).prop_map(|(document, ttl)| Edit::Put { document, ttl }),
        4 => Just(Edit::Delete),
        6 => (patch(), ttl()).prop_map(|(patch, ttl)| Edit::Patch { patch, ttl }),
    ]
}

fn condition() -> impl Strategy<Value = ConditionKind> {
    let right = || proptest::bool::weighted(0.75);
    prop_oneof![
        11 => Just(ConditionKind::None),
        1 => Just(ConditionKind::Absent),
        2 => right().prop_map(|right| ConditionKind::Version { right }),
        1 => Just(ConditionKind::Exists),
        1 => Just(ConditionKind::NotExists),
        1 => right().prop_map(|right| ConditionKind::Etag { right }),
        1 => right().prop_map(|right| ConditionKind::NotEtag { right }),
    ]
}

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![
        6 => Just(Durability::Default),
        1 => Just(Durability::Sync),
        1 => Just(Durability::Async),
    ]
}

fn snapshot_kind() -> impl Strategy<Value = SnapshotKind> {
    prop_oneof![
        2 => Just(SnapshotKind::Incremental),
        1 => Just(SnapshotKind::Full),
        1 => Just(SnapshotKind::Auto),
    ]
}

fn survival() -> impl Strategy<Value = Survival> {
    let chance = || select(&[0, 10, 50, 90, 100][..]);
    (
        any::<u32>(),
        chance(),
        select(&[0, 20, 100][..]),
        select(&[0, 0, 50][..]),
        chance(),
    )
        .prop_map(|(seed, sectors, torn, garbage, names)| Survival {
            seed,
            sectors,
            torn,
            garbage,
            names,
        })
}

fn fault() -> impl Strategy<Value = Fault> {
    let area = prop_oneof![
        2 => Just(Some(Area::Wal)),
        2 => Just(Some(Area::Snapshots)),
        1 => Just(None),
    ];
    let call = prop_oneof![1 => Just(None), 3 => select(&Call::ALL[..]).prop_map(Some)];
    (
        area,
        call,
        0..6_u8,
        prop_oneof![3 => Just(1), 1 => Just(u32::MAX)],
        0..4_u8,
    )
        .prop_map(|(area, call, after, times, no_room)| Fault {
            area,
            call,
            after,
            times,
            // A read never lacks room.
            no_room: call != Some(Call::Read) && no_room == 3,
        })
}

fn setup() -> impl Strategy<Value = Setup> {
    let sync = prop_oneof![
        5 => Just(Sync::Always),
        2 => select(&[1, 20, 1_000][..]).prop_map(Sync::Interval),
        2 => Just(Sync::Os),
    ];
    (
        (0..7_u8, 1..4_u8, sync),
        (
            8..24_u8,
            select(&[3_600_000, 50, 2_000][..]),
            select(&[64, 1, 8][..]),
        ),
        (1..5_u8, select(&[8, 0, 1, 3][..])),
        (
            select(&[255, 4, 16][..]),
            select(&[900_000, 100, 3_000][..]),
        ),
        (
            proptest::bool::weighted(0.3),
            select(&[0, 0, 50, 3_000][..]),
        ),
    )
        .prop_map(
            |(
                (partitions_log2, lanes, sync),
                (segment_kib, segment_age_ms, queue_kib),
                (parts, full_every),
                (snapshot_after_kib, snapshot_interval_ms),
                (compress, keep_ms),
            )| Setup {
                partitions_log2,
                lanes,
                sync,
                segment_kib,
                segment_age_ms,
                queue_kib,
                parts,
                full_every,
                snapshot_after_kib,
                snapshot_interval_ms,
                compress,
                keep_ms,
            },
        )
}

fn end() -> impl Strategy<Value = End> {
    let how = prop_oneof![
        7 => survival().prop_map(How::PowerCut),
        2 => Just(How::Kill),
        1 => Just(How::Close),
    ];
    let trouble = prop_oneof![
        2 => (0..12_u8, survival()).prop_map(|(calls, survival)| Trouble::PowerCutAt(calls, survival)),
        1 => (0..12_u8).prop_map(Trouble::KillAt),
        1 => fault().prop_map(Trouble::Fault),
    ];
    (
        how,
        select(&[1, 30, 1_500, 60_000][..]),
        prop_oneof![4 => Just(None), 1 => trouble.prop_map(Some)],
        setup(),
    )
        .prop_map(|(how, away, trouble, next)| End {
            how,
            away,
            trouble,
            next,
        })
}

fn coding() -> impl Strategy<Value = Coding> {
    const MODES: [CodingMode; 4] = [
        CodingMode::Adaptive,
        CodingMode::Off,
        CodingMode::Lz4,
        CodingMode::Zstd,
    ];
    (
        select(&MODES[..]),
        any::<bool>(),
        prop_oneof![1 => Just(None), 2 => select(&[0, 20, 1_000][..]).prop_map(Some)],
        any::<bool>(),
    )
        .prop_map(|(mode, dictionaries, batches, keys)| Coding {
            mode,
            dictionaries,
            batches,
            keys,
        })
}

fn restore() -> impl Strategy<Value = Restore> {
    let how = prop_oneof![
        6 => Just(RestoreHow::Whole),
        1 => any::<u16>().prop_map(RestoreHow::CutOff),
        1 => (any::<u16>(), any::<u8>()).prop_map(|(at, mask)| RestoreHow::Damaged(at, mask)),
    ];
    (
        any::<u8>(),
        any::<bool>(),
        prop_oneof![3 => Just(None), 1 => (0..KEYS).prop_map(Some)],
        how,
        select(&[u16::MAX, 700, 61][..]),
    )
        .prop_map(|(backup, merge, prefix, how, piece)| Restore {
            backup,
            merge,
            prefix,
            how,
            piece,
        })
}

fn step() -> impl Strategy<Value = Step> {
    let lane = || 0..4_u8;
    let key = || 0..KEYS;
    let write = (lane(), key(), condition(), edit(), durability()).prop_map(
        |(lane, key, condition, edit, durability)| {
            Step::Write(Write {
                lane,
                key,
                condition,
                edit,
                durability,
            })
        },
    );
    let operation = (
        key(),
        condition(),
        prop_oneof![4 => edit().prop_map(Some), 1 => Just(None)],
    )
        .prop_map(|(key, condition, edit)| Operation {
            key,
            condition,
            edit,
        });
    let batch = (lane(), prop::collection::vec(operation, 1..9), durability()).prop_map(
        |(lane, operations, durability)| Step::Batch {
            lane,
            operations,
            durability,
        },
    );
    let passes = prop_oneof![5 => 1..30_u32, 3 => select(&[100, 700, 1_100, 11_000][..])];
    // In boxes: the union of unboxed ones would be as large as all of them together.
    prop_oneof![
        80 => write.boxed(),
        8 => batch.boxed(),
        16 => (lane(), key()).prop_map(|(lane, key)| Step::Get { lane, key }),
        4 => (lane(), 1..40_u8).prop_map(|(lane, slice)| Step::Scan { lane, slice }),
        32 => (1..4_u8).prop_map(Step::WriteLog),
        10 => (1..6_u8).prop_map(Step::Homes),
        8 => lane().prop_map(Step::Home),
        16 => (1..4_u8).prop_map(Step::Checkpoint),
        8 => (1..4_u8).prop_map(Step::KeepLog),
        3 => Just(Step::Backup),
        3 => restore().prop_map(Step::Restore),
        2 => coding().prop_map(Step::Store),
        6 => Just(Step::Compress),
        3 => any::<bool>().prop_map(|on| Step::Switch { on }),
        6 => (1..9_u8).prop_map(Step::Follow),
        4 => snapshot_kind().prop_map(Step::AskForSnapshot),
        5 => snapshot_kind().prop_map(Step::Snapshot),
        2 => Just(Step::Settle),
        14 => passes.prop_map(Step::Pass),
        2 => fault().prop_map(Step::Fault),
        1 => (0..20_000_u32).prop_map(Step::FillUp),
        2 => Just(Step::MakeRoom),
        5 => (0..40_u8, end()).prop_map(|(calls, end)| Step::StopAt { calls, end }).boxed(),
        3 => end().prop_map(Step::Stop).boxed(),
    ]
}

pub(crate) fn history() -> impl Strategy<Value = History> {
    (
        any::<u64>(),
        setup(),
        prop::collection::vec(step(), 1..200),
        survival(),
    )
        .prop_map(|(disk, first, steps, last)| History {
            disk,
            first,
            steps,
            last,
        })
}
