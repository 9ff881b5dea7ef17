//! A history as data: what clients ask, what the store does behind them, and what happens to its machine.

use super::faults::{Armed, Fault, Survival};
use bytes::Bytes;
use fastrand::Rng;
use inflightkv_server::engine::{
    Durability, PatchKind, PatchTtl, PutTtl, SnapshotKind, Sequence, Value, VersionCondition,
};

/// Few enough that clients meet on a key.
pub(crate) const KEYS: usize = 12;

/// One step of a history.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Write(Write),
    Batch { lane: usize, operations: Vec<BatchStep>, durability: Durability },
    Get { lane: usize, key: usize },
    Scan { lane: usize },
    /// Rounds of the log's writer, while it says that there is more, at most so many.
    WriteLog(u32),
    /// Smallest steps of every lane's background work.
    Homes(u32),
    /// One step of one lane.
    Home(usize),
    /// Steps of the checkpointer.
    Checkpoint(u32),
    AskForSnapshot(SnapshotKind),
    /// Everything behind the clients goes on until a snapshot asked for now has ended.
    Snapshot(SnapshotKind),
    /// Milliseconds pass.
    Pass(u64),
    Fault(Fault),
    /// Room for so many bytes is left.
    FillUp(u64),
    MakeRoom,
    /// The machine stops at a call to come, as the end says.
    StopAt(Armed, End),
    /// The machine stops now.
    Stop(End),
}

/// One write of one client.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) lane: usize,
    pub(crate) key: usize,
    pub(crate) condition: ConditionKind,
    pub(crate) edit: Edit,
    pub(crate) durability: Durability,
}

/// One operation of a batch; a read without an edit.
#[derive(Clone, Debug)]
pub(crate) struct BatchStep {
    pub(crate) key: usize,
    pub(crate) condition: ConditionKind,
    pub(crate) edit: Option<Edit>,
}

/// A condition relative to what the client last saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConditionKind {
    None,
    Absent,
    /// The version that the key has, or the one after it.
    Version { right: bool },
    Exists,
    NotExists,
    /// The entity tag that the key has, or another.
    Etag { right: bool },
    NotEtag { right: bool },
}

/// A condition with its numbers.
#[derive(Clone, Debug)]
pub(crate) enum Condition {
    None,
    Version(VersionCondition),
    /// Any without a list.
    Match(Option<Vec<Sequence>>),
    NoneMatch(Option<Vec<Sequence>>),
}

/// What a write does.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Put(Put),
    Patch { kind: PatchKind, patch: Bytes, ttl: PatchTtl },
    Delete,
}

#[derive(Clone, Debug)]
pub(crate) struct Put {
    pub(crate) value: Value,
    pub(crate) ttl: PutTtl,
}

/// How a run ends, and how the next begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) how: How,
    /// Decides everything about the next start.
    pub(crate) next: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// In good order.
    Close,
    /// The process is killed: what it handed to the system is there.
    Kill,
    /// The power fails.
    PowerCut(Survival),
}

impl Condition {
    /// The condition that a client who knows `version` and `sequence` of the key would send.
    pub(crate) fn of(kind: ConditionKind, current: Option<(u64, u64)>) -> Self {
        let (version, sequence) = current.unwrap_or((3, 3));
        let tag = |right: bool| Some(vec![Sequence::from_raw(7), Sequence::from_raw(sequence + u64::from(!right))]);
        match kind {
            ConditionKind::None => Condition::None,
            ConditionKind::Absent => Condition::Version(VersionCondition::Absent),
            ConditionKind::Version { right } => {
                Condition::Version(VersionCondition::Is(version + u64::from(!right)))
            }
            ConditionKind::Exists => Condition::Match(None),
            ConditionKind::NotExists => Condition::NoneMatch(None),
            ConditionKind::Etag { right } => Condition::Match(tag(right)),
            ConditionKind::NotEtag { right } => Condition::NoneMatch(tag(right)),
        }
    }

    fn drawn(rng: &mut Rng) -> ConditionKind {
        let right = rng.u8(0..4) > 0;
        match rng.u8(0..18) {
            0 => ConditionKind::Absent,
            1 | 2 => ConditionKind::Version { right },
            3 => ConditionKind::Exists,
            4 => ConditionKind::NotExists,
            5 => ConditionKind::Etag { right },
            6 => ConditionKind::NotEtag { right },
            _ => ConditionKind::None,
        }
    }
}

fn text(rng: &mut Rng, len: usize) -> String {
    let letter = rng.lowercase();
    (0..len).map(|at| if at % 7 == 0 { rng.lowercase() } else { letter }).collect()
}

fn len(rng: &mut Rng) -> usize {
    match rng.u8(0..40) {
        // Beyond what an entry holds inline, and beyond what a patch computes under the lock.
        0..=1 => rng.usize(2_100..6_000),
        2..=5 => rng.usize(300..1_500),
        _ => rng.usize(0..60),
    }
}

fn value(rng: &mut Rng) -> Value {
    let text_len = len(rng);
    if rng.u8(0..6) == 0 {
        let bytes: Vec<u8> = (0..text_len).map(|_| rng.u8(..)).collect();
        let media_type = ["text/plain", "application/octet-stream"][rng.usize(..2)];
        return Value { bytes: bytes.into(), media_type: Some(media_type.to_owned()) };
    }
    let json = match rng.u8(0..8) {
        // The same again and again, so that a put may change nothing.
        0 => rng.u8(0..3).to_string(),
        1 => format!("[{},\"{}\"]", rng.u32(0..1000), text(rng, text_len)),
        _ => format!("{{\"n\":{},\"s\":\"{}\"}}", rng.u32(0..1000), text(rng, text_len)),
    };
    Value { bytes: json.into(), media_type: None }
}

fn ttl(rng: &mut Rng) -> u64 {
    [1, 5, 40, 300, 2_500, 60_000][rng.usize(..6)]
}

impl Edit {
    fn drawn(rng: &mut Rng) -> Self {
        match rng.u8(0..20) {
            0..=9 => {
                let ttl = match rng.u8(0..8) {
                    0 | 1 => PutTtl::For(ttl(rng)),
                    2 => PutTtl::Keep,
                    _ => PutTtl::Clear,
                };
                Edit::Put(Put { value: value(rng), ttl })
            }
            10..=15 => Self::patch(rng),
            _ => Edit::Delete,
        }
    }

    fn patch(rng: &mut Rng) -> Self {
        let ttl = match rng.u8(0..6) {
            0 => PatchTtl::For(ttl(rng)),
            1 => PatchTtl::Clear,
            _ => PatchTtl::Keep,
        };
        let number = rng.u32(0..1000);
        let text_len = len(rng);
        let (kind, patch) = match rng.u8(0..6) {
            0 | 1 => (PatchKind::Shallow, format!("{{\"n\":{number},\"a\":\"{}\"}}", text(rng, text_len))),
            2 => (PatchKind::Merge, format!("{{\"n\":{number},\"s\":null,\"o\":{{\"x\":{number}}}}}")),
            3 => (PatchKind::Merge, format!("{{\"o\":{{\"y\":\"{}\"}}}}", text(rng, text_len))),
            4 => (
                PatchKind::Json,
                format!("[{{\"op\":\"add\",\"path\":\"/p\",\"value\":{number}}},{{\"op\":\"remove\",\"path\":\"/n\"}}]"),
            ),
            _ => (
                PatchKind::Json,
                format!("[{{\"op\":\"replace\",\"path\":\"/n\",\"value\":{number}}},{{\"op\":\"test\",\"path\":\"/n\",\"value\":{number}}}]"),
            ),
        };
        Edit::Patch { kind, patch: patch.into(), ttl }
    }
}

fn durability(rng: &mut Rng) -> Durability {
    match rng.u8(0..8) {
        0 => Durability::Sync,
        1 => Durability::Async,
        _ => Durability::Default,
    }
}

fn snapshot_kind(rng: &mut Rng) -> SnapshotKind {
    match rng.u8(0..4) {
        0 => SnapshotKind::Full,
        1 => SnapshotKind::Auto,
        _ => SnapshotKind::Incremental,
    }
}

impl End {
    fn drawn(rng: &mut Rng) -> Self {
        let how = match rng.u8(0..10) {
            0 => How::Close,
            1 | 2 => How::Kill,
            _ => How::PowerCut(Survival::drawn(rng)),
        };
        End { how, next: rng.u64(..) }
    }
}

impl Step {
    /// A step of the usual kind: no harm done.
    fn harmless(rng: &mut Rng) -> Self {
        let lane = rng.usize(0..4);
        match rng.u8(0..100) {
            0..=39 => Step::Write(Write {
                lane,
                key: rng.usize(..KEYS),
                condition: Condition::drawn(rng),
                edit: Edit::drawn(rng),
                durability: durability(rng),
            }),
            40..=43 => {
                let operations = (0..rng.usize(1..9))
                    .map(|_| BatchStep {
                        key: rng.usize(..KEYS),
                        condition: Condition::drawn(rng),
                        edit: (rng.u8(0..5) > 0).then(|| Edit::drawn(rng)),
                    })
                    .collect();
                Step::Batch { lane, operations, durability: durability(rng) }
            }
            44..=51 => Step::Get { lane, key: rng.usize(..KEYS) },
            52..=53 => Step::Scan { lane },
            54..=69 => Step::WriteLog(rng.u32(1..4)),
            70..=74 => Step::Homes(rng.u32(1..6)),
            75..=79 => Step::Home(lane),
            80..=87 => Step::Checkpoint(rng.u32(1..4)),
            88..=89 => Step::AskForSnapshot(snapshot_kind(rng)),
            90..=91 => Step::Snapshot(snapshot_kind(rng)),
            92..=96 => Step::Pass(rng.u64(1..30)),
            _ => Step::Pass([100, 700, 1_100, 11_000][rng.usize(..4)]),
        }
    }

    /// Any step.
    pub(crate) fn drawn(rng: &mut Rng) -> Self {
        match rng.u8(0..200) {
            0..=1 => Step::Fault(Fault::drawn(rng)),
            2 => Step::FillUp(rng.u64(0..20_000)),
            3..=4 => Step::MakeRoom,
            5..=8 => Step::StopAt(Armed { calls: rng.u32(0..40) }, End::drawn(rng)),
            9..=10 => Step::Stop(End::drawn(rng)),
            _ => Self::harmless(rng),
        }
    }
}

/// A whole history: how the first run is set up, and its steps. It ends with a power cut.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) first: u64,
    pub(crate) steps: Vec<Step>,
}

impl History {
    /// The history of `seed`.
    pub(crate) fn drawn(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let first = rng.u64(..);
        let len = rng.usize(20..200);
        let mut steps: Vec<Step> = (0..len).map(|_| Step::drawn(&mut rng)).collect();
        steps.push(Step::Stop(End { how: How::PowerCut(Survival::drawn(&mut rng)), next: rng.u64(..) }));
        History { first, steps }
    }
}
