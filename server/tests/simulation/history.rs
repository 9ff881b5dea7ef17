//! A history as plain data: what clients ask, what the store does behind them, and what happens to its machine.
//!
//! Everything that decides a run is in here, so that a history that was saved is the same run again.

use super::faults::{Fault, Survival};
use bytes::Bytes;
use inflightkv_server::engine::{self as engine, Sequence, Value, VersionCondition};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// Few enough that clients meet on a key.
pub(crate) const KEYS: u8 = 12;

/// A whole history: the first run, and what happens from then on. It ends with a power cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct History {
    /// Decides what the disk does by half where it may do so.
    pub(crate) disk: u64,
    pub(crate) first: Setup,
    pub(crate) steps: Vec<Step>,
    pub(crate) last: Survival,
}

/// One step of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    Write(Write),
    Batch {
        lane: u8,
        operations: Vec<Operation>,
        durability: Durability,
    },
    Get {
        lane: u8,
        key: u8,
    },
    /// A listing of all keys, so many places at a time.
    Scan {
        lane: u8,
        slice: u8,
    },
    /// Rounds of the log's writer, while it says that there is more, at most so many.
    WriteLog(u8),
    /// Smallest steps of every lane's background work.
    Homes(u8),
    /// One such step of one lane.
    Home(u8),
    /// Steps of the checkpointer.
    Checkpoint(u8),
    /// Steps of the log's upkeep.
    KeepLog(u8),
    /// A backup is begun, if none is on its way; it is read as it comes.
    Backup,
    Restore(Restore),
    /// How values and keys are stored from now on.
    Store(Coding),
    /// A pass of the compressor.
    Compress,
    /// Persistence is turned on or off, a step of that after each of the next ones.
    Switch {
        on: bool,
    },
    /// The store that follows takes so many frames of the log more.
    Follow(u8),
    AskForSnapshot(SnapshotKind),
    /// Everything behind the clients goes on until a snapshot asked for now has ended.
    Snapshot(SnapshotKind),
    /// Everything behind the clients goes on until nothing is left to do.
    Settle,
    /// Milliseconds pass.
    Pass(u32),
    Fault(Fault),
    /// Room for so many bytes is left.
    FillUp(u32),
    MakeRoom,
    /// The machine stops in the middle of the call after so many that change something, as the end says.
    StopAt {
        calls: u8,
        end: End,
    },
    /// The machine stops now.
    Stop(End),
}

/// What is stored in another form than it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Coding {
    pub(crate) mode: CodingMode,
    pub(crate) dictionaries: bool,
    /// Small values that are cold after so many milliseconds lie together in blocks.
    pub(crate) batches: Option<u16>,
    pub(crate) keys: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CodingMode {
    Off,
    Lz4,
    Zstd,
    Adaptive,
}

/// One of the last backups, laid over what is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Restore {
    pub(crate) backup: u8,
    pub(crate) merge: bool,
    /// Of a merge: keys that begin like this one.
    pub(crate) prefix: Option<u8>,
    pub(crate) how: RestoreHow,
    /// It comes in pieces of so many bytes.
    pub(crate) piece: u16,
}

/// In which state it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RestoreHow {
    Whole,
    CutOff(u16),
    /// Bits of a byte are turned over.
    Damaged(u16, u8),
}

/// One write of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Write {
    pub(crate) lane: u8,
    pub(crate) key: u8,
    pub(crate) condition: ConditionKind,
    pub(crate) edit: Edit,
    pub(crate) durability: Durability,
}

/// One operation of a batch; a read without an edit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Operation {
    pub(crate) key: u8,
    pub(crate) condition: ConditionKind,
    pub(crate) edit: Option<Edit>,
}

/// A condition relative to what the key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ConditionKind {
    None,
    Absent,
    /// The version that the key has, or the one after it.
    Version {
        right: bool,
    },
    Exists,
    NotExists,
    /// The entity tag that the key has, or another.
    Etag {
        right: bool,
    },
    NotEtag {
        right: bool,
    },
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Edit {
    Put { document: Document, ttl: Ttl },
    Patch { patch: Patch, ttl: Ttl },
    Delete,
}

/// What becomes of the time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ttl {
    Clear,
    Keep,
    For(u32),
}

/// A value, by what it is like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Document {
    /// Few of them, so that a put may change nothing.
    Number(u8),
    List(u16, Text),
    Object(u16, Text),
    Opaque(Text),
}

/// So many bytes, which ones being decided by the salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Text {
    pub(crate) len: u16,
    pub(crate) salt: u8,
}

/// A patch, by what it is like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Patch {
    Shallow(u16, Text),
    MergeAndRemove(u16),
    MergeInto(Text),
    AddAndRemove(u16),
    ReplaceAndTest(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Durability {
    Default,
    Sync,
    Async,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SnapshotKind {
    Full,
    Incremental,
    Auto,
}

/// How a run ends, and how the next one is set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) how: How,
    /// Milliseconds until the next start, at least 1.
    pub(crate) away: u32,
    /// What happens while the next run recovers.
    pub(crate) trouble: Option<Trouble>,
    pub(crate) next: Setup,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum How {
    /// In good order.
    Close,
    /// The process is killed: what it handed to the system is there.
    Kill,
    /// The power fails.
    PowerCut(Survival),
}

/// What goes wrong during a recovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Trouble {
    /// The process is killed in the middle of a call.
    KillAt(u8),
    /// The power fails in the middle of a call.
    PowerCutAt(u8, Survival),
    /// A call fails.
    Fault(Fault),
}

/// How a run is set up. It may differ from run to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) partitions_log2: u8,
    pub(crate) lanes: u8,
    pub(crate) sync: Sync,
    pub(crate) segment_kib: u8,
    pub(crate) segment_age_ms: u32,
    pub(crate) queue_kib: u8,
    pub(crate) parts: u8,
    pub(crate) full_every: u8,
    /// A snapshot is due after so many KiB of log.
    pub(crate) snapshot_after_kib: u8,
    pub(crate) snapshot_interval_ms: u32,
    /// Sealed segments of the log are rewritten.
    #[serde(default)]
    pub(crate) compress: bool,
    /// How long retired segments of the log are kept.
    #[serde(default)]
    pub(crate) keep_ms: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Sync {
    Always,
    Interval(u32),
    Os,
}

pub(crate) fn key_name(key: u8) -> String {
    format!("key/{key}")
}

impl Text {
    fn bytes(self) -> impl Iterator<Item = u8> {
        let mut state = u32::from(self.salt) | 0x5EED_0000;
        (0..self.len).map(move |at| {
            // Runs, so that blocks and frames compress, and breaks in them, so that they do not vanish.
            if at % 7 == 0 {
                state = state.wrapping_mul(0x0019_660D).wrapping_add(0x3C6E_F35F);
            }
            (state >> 24) as u8
        })
    }

    fn letters(self) -> String {
        self.bytes()
            .map(|byte| char::from(b'a' + byte % 26))
            .collect()
    }
}

impl Document {
    pub(crate) fn value(&self) -> Value {
        let json = |text: String| Value {
            bytes: Bytes::from(text),
            media_type: None,
        };
        match self {
            Document::Number(number) => json(number.to_string()),
            Document::List(number, text) => json(format!("[{number},\"{}\"]", text.letters())),
            Document::Object(number, text) => {
                json(format!("{{\"n\":{number},\"s\":\"{}\"}}", text.letters()))
            }
            Document::Opaque(text) => Value {
                bytes: text.bytes().collect::<Vec<u8>>().into(),
                media_type: Some(
                    ["text/plain", "application/octet-stream"][usize::from(text.salt % 2)]
                        .to_owned(),
                ),
            },
        }
    }
}

impl Patch {
    pub(crate) fn kind(&self) -> engine::PatchKind {
        match self {
            Patch::Shallow(..) => engine::PatchKind::Shallow,
            Patch::MergeAndRemove(_) | Patch::MergeInto(_) => engine::PatchKind::Merge,
            Patch::AddAndRemove(_) | Patch::ReplaceAndTest(_) => engine::PatchKind::Json,
        }
    }

    pub(crate) fn document(&self) -> Bytes {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = match self {
            Patch::Shallow(number, filler) => {
                write!(text, "{{\"n\":{number},\"a\":\"{}\"}}", filler.letters())
            }
            Patch::MergeAndRemove(number) => write!(
                text,
                "{{\"n\":{number},\"s\":null,\"o\":{{\"x\":{number}}}}}"
            ),
            Patch::MergeInto(filler) => {
                write!(text, "{{\"o\":{{\"y\":\"{}\"}}}}", filler.letters())
            }
            Patch::AddAndRemove(number) => write!(
                text,
                "[{{\"op\":\"add\",\"path\":\"/p\",\"value\":{number}}},{{\"op\":\"remove\",\"path\":\"/n\"}}]"
            ),
            Patch::ReplaceAndTest(number) => write!(
                text,
                "[{{\"op\":\"replace\",\"path\":\"/n\",\"value\":{number}}},{{\"op\":\"test\",\"path\":\"/n\",\"value\":{number}}}]"
            ),
        };
        text.into()
    }
}

impl Ttl {
    pub(crate) fn of_put(self) -> engine::PutTtl {
        match self {
            Ttl::Clear => engine::PutTtl::Clear,
            Ttl::Keep => engine::PutTtl::Keep,
            Ttl::For(ms) => engine::PutTtl::For(ms.into()),
        }
    }

    pub(crate) fn of_patch(self) -> engine::PatchTtl {
        match self {
            Ttl::Clear => engine::PatchTtl::Clear,
            Ttl::Keep => engine::PatchTtl::Keep,
            Ttl::For(ms) => engine::PatchTtl::For(ms.into()),
        }
    }

    /// When a key expires that is written at `now` and expires at `before` so far.
    pub(crate) fn expires_at(self, before: Option<u64>, now: u64) -> Option<u64> {
        match self {
            Ttl::Clear => None,
            Ttl::Keep => before,
            Ttl::For(ms) => Some(now + u64::from(ms)),
        }
    }
}

impl From<Durability> for engine::Durability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Default => Self::Default,
            Durability::Sync => Self::Sync,
            Durability::Async => Self::Async,
        }
    }
}

impl From<SnapshotKind> for engine::SnapshotKind {
    fn from(kind: SnapshotKind) -> Self {
        match kind {
            SnapshotKind::Full => Self::Full,
            SnapshotKind::Incremental => Self::Incremental,
            SnapshotKind::Auto => Self::Auto,
        }
    }
}

impl From<Coding> for engine::Compression {
    fn from(coding: Coding) -> Self {
        Self {
            mode: match coding.mode {
                CodingMode::Off => engine::CompressionMode::Off,
                CodingMode::Lz4 => engine::CompressionMode::Lz4,
                CodingMode::Zstd => engine::CompressionMode::Zstd,
                CodingMode::Adaptive => engine::CompressionMode::Adaptive,
            },
            dictionaries: coding.dictionaries,
            batches: coding.batches.is_some(),
            cold_after_ms: coding.batches.unwrap_or(0).into(),
            keys: coding.keys,
            ..Self::default()
        }
    }
}

impl Condition {
    /// The condition that a client who knows `version` and `sequence` of the key would send.
    pub(crate) fn of(kind: ConditionKind, current: Option<(u64, u64)>) -> Self {
        let (version, sequence) = current.unwrap_or((3, 3));
        let tag = |right: bool| {
            let sequence = Sequence::from_raw(sequence + u64::from(!right));
            Some(vec![Sequence::from_raw(7), sequence])
        };
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

    pub(crate) fn owned(self) -> engine::OwnedConditions {
        let etag = |list: Option<Vec<Sequence>>| {
            Some(list.map_or(
                engine::OwnedEtagCondition::Any,
                engine::OwnedEtagCondition::OneOf,
            ))
        };
        let mut conditions = engine::OwnedConditions::default();
        match self {
            Condition::None => {}
            Condition::Version(version) => conditions.version = Some(version),
            Condition::Match(list) => conditions.if_match = etag(list),
            Condition::NoneMatch(list) => conditions.if_none_match = etag(list),
        }
        conditions
    }
}
