//! A disk that forgets what was not synced and fails when told to, and a few words to speak about logs.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use inflightkv_wal::{
    Cause, CodecError, Codecs, Lsn, Op, Options, Outcome, Record, RecordHead, RecoveryError,
    RecoveryMode, SegmentCodec, SegmentFile, Start, Storage, StoreId, SyncMode, Value, Wal, Writer,
    scan,
};

pub(crate) const STORE: StoreId = *b"a store of tests";
const SECTOR: usize = 512;

/// A disk in memory. Clones are handles of the same disk.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<u64, File>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    pending_names: Vec<NameOp>,
    next_file: u64,
    ops: u64,
    fault: Option<Fault>,
    capacity: Option<u64>,
}

#[derive(Clone)]
enum NameOp {
    Link(String, u64),
    Unlink(String),
    Rename(String, String),
}

#[derive(Clone, Default)]
struct File {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<DataOp>,
}

#[derive(Clone)]
enum DataOp {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

#[derive(Clone, Copy)]
enum Fault {
    /// This operation fails, the next ones do not.
    Once(u64),
    /// From this operation on nothing happens any more.
    PowerOff(u64),
}

impl Disk {
    pub(crate) fn new() -> Disk {
        Disk::default()
    }

    pub(crate) fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(self.clone())
    }

    /// Operations that change something, so far.
    pub(crate) fn ops(&self) -> u64 {
        self.state.lock().unwrap().ops
    }

    pub(crate) fn fail_once_at(&self, op: u64) {
        self.state.lock().unwrap().fault = Some(Fault::Once(op));
    }

    pub(crate) fn power_off_at(&self, op: u64) {
        self.state.lock().unwrap().fault = Some(Fault::PowerOff(op));
    }

    /// The process was killed and a new one begins: nothing fails any more, and nothing is lost yet.
    pub(crate) fn restart_process(&self) {
        self.state.lock().unwrap().fault = None;
    }

    pub(crate) fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().unwrap().capacity = bytes;
    }

    pub(crate) fn used(&self) -> u64 {
        self.state.lock().unwrap().used()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.state.lock().unwrap().names.keys().cloned().collect()
    }

    /// Segment files, oldest first.
    pub(crate) fn segments(&self) -> Vec<String> {
        let is_segment = |name: &String| name.starts_with("wal-0") && name.ends_with(".log");
        self.names().into_iter().filter(is_segment).collect()
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.state.lock().unwrap();
        state.files[&state.names[name]].now.clone()
    }

    /// Puts a durable file there.
    pub(crate) fn put_file(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state.lock().unwrap();
        let id = state.next_file;
        state.next_file += 1;
        state.names.insert(name.to_owned(), id);
        state.durable_names.insert(name.to_owned(), id);
        let file = File {
            now: bytes.clone(),
            durable: bytes,
            pending: Vec::new(),
        };
        state.files.insert(id, file);
    }

    /// The same files on another disk, all durable.
    pub(crate) fn copy(&self) -> Disk {
        let copy = Disk::new();
        for name in self.names() {
            copy.put_file(&name, self.bytes(&name));
        }
        copy
    }

    /// What a power cut leaves: synced bytes, and of the others any sectors, in any order. `keep` is the chance of
    /// each in percent.
    pub(crate) fn after_power_cut(&self, rng: &mut fastrand::Rng, keep: u32) -> Disk {
        let state = self.state.lock().unwrap();
        let mut names = state.durable_names.clone();
        // A journal keeps the order of names, so that a prefix survives; without one it may be any of them.
        let is_ordered = rng.bool();
        let kept = match keep {
            0 => 0,
            100 => state.pending_names.len(),
            _ => rng.usize(0..=state.pending_names.len()),
        };
        for (index, op) in state.pending_names.iter().enumerate() {
            let survives = match is_ordered {
                true => index < kept,
                false => rng.u32(0..100) < keep,
            };
            if survives {
                apply_name(&mut names, op);
            }
        }
        let after = Disk::new();
        for (name, id) in names {
            let file = &state.files[&id];
            let mut bytes = file.durable.clone();
            for op in &file.pending {
                match op {
                    DataOp::SetLen(len) if rng.u32(0..100) < keep => {
                        bytes.resize(*len as usize, 0);
                    }
                    DataOp::SetLen(_) => {}
                    DataOp::Write(offset, data) => {
                        let mut at = 0;
                        while at < data.len() {
                            let place = *offset as usize + at;
                            let len = (SECTOR - place % SECTOR).min(data.len() - at);
                            if rng.u32(0..100) < keep {
                                write(&mut bytes, place, &data[at..at + len]);
                            }
                            at += len;
                        }
                    }
                }
            }
            after.put_file(&name, bytes);
        }
        after
    }

    fn change<T>(&self, what: impl FnOnce(&mut State, bool) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock().unwrap();
        let op = state.ops;
        state.ops += 1;
        match state.fault {
            Some(Fault::PowerOff(at)) if op > at => Err(io::Error::other("no power")),
            Some(Fault::PowerOff(at) | Fault::Once(at)) if op == at => {
                // The operation may have had a part of its effect before it failed.
                let _ = what(&mut state, true);
                Err(io::Error::other("injected failure"))
            }
            _ => what(&mut state, false),
        }
    }
}

impl State {
    fn used(&self) -> u64 {
        self.names
            .values()
            .map(|id| self.files[id].now.len() as u64)
            .sum()
    }

    fn has_room(&self, id: u64, len: u64) -> io::Result<()> {
        let old = self.files[&id].now.len() as u64;
        match self.capacity {
            Some(capacity) if len > old && self.used() + len - old > capacity => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }
}

fn apply_name(names: &mut BTreeMap<String, u64>, op: &NameOp) {
    match op {
        NameOp::Link(name, id) => {
            names.insert(name.clone(), *id);
        }
        NameOp::Unlink(name) => {
            names.remove(name);
        }
        NameOp::Rename(from, to) => {
            if let Some(id) = names.remove(from) {
                names.insert(to.clone(), id);
            }
        }
    }
}

fn write(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Storage for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn SegmentFile>> {
        self.change(|state, fails| {
            if state.names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            if fails {
                return Err(io::Error::other("injected"));
            }
            let id = state.next_file;
            state.next_file += 1;
            state.files.insert(id, File::default());
            let op = NameOp::Link(name.to_owned(), id);
            apply_name(&mut state.names, &op);
            state.pending_names.push(op);
            Ok(Box::new(Handle {
                disk: self.clone(),
                id,
            }) as Box<dyn SegmentFile>)
        })
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn SegmentFile>> {
        let state = self.state.lock().unwrap();
        let id = *state.names.get(name).ok_or_else(not_found)?;
        Ok(Box::new(Handle {
            disk: self.clone(),
            id,
        }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if !self.state.lock().unwrap().names.contains_key(name) {
            return Err(not_found());
        }
        self.change(|state, _| {
            let op = NameOp::Unlink(name.to_owned());
            apply_name(&mut state.names, &op);
            state.pending_names.push(op);
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|state, _| {
            if !state.names.contains_key(from) {
                return Err(not_found());
            }
            let op = NameOp::Rename(from.to_owned(), to.to_owned());
            apply_name(&mut state.names, &op);
            state.pending_names.push(op);
            Ok(())
        })
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.change(|state, fails| {
            if !fails {
                state.durable_names = state.names.clone();
                state.pending_names.clear();
            }
            Ok(())
        })
    }
}

struct Handle {
    disk: Disk,
    id: u64,
}

impl Handle {
    fn change(&self, what: impl FnOnce(&mut File, bool)) -> io::Result<()> {
        self.disk.change(|state, fails| {
            what(state.files.get_mut(&self.id).unwrap(), fails);
            Ok(())
        })
    }
}

impl SegmentFile for Handle {
    fn allocate(&mut self, len: u64) -> io::Result<()> {
        self.disk.state.lock().unwrap().has_room(self.id, len)?;
        self.set_len(len)
    }

    fn write_at(&mut self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut data: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let end = offset + data.len() as u64;
        let room = self.disk.state.lock().unwrap().has_room(self.id, end);
        let full = room.is_err();
        self.change(|file, fails| {
            if fails || full {
                data.truncate(data.len() / 2);
            }
            write(&mut file.now, offset as usize, &data);
            file.pending.push(DataOp::Write(offset, data));
        })?;
        room
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.change(|file, fails| {
            if !fails {
                file.durable = file.now.clone();
                file.pending.clear();
            }
        })
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.change(|file, _| {
            file.now.resize(len as usize, 0);
            file.pending.push(DataOp::SetLen(len));
        })
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.disk.state.lock().unwrap();
        Ok(state.files[&self.id].now.len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let state = self.disk.state.lock().unwrap();
        let bytes = &state.files[&self.id].now;
        let end = offset as usize + buf.len();
        let found = bytes
            .get(offset as usize..end)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(found);
        Ok(())
    }
}

/// A record that lives by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) lsn: u64,
    pub(crate) version: u64,
    pub(crate) expires_at: Option<u64>,
    pub(crate) op: Op,
    pub(crate) cause: Cause,
    pub(crate) media_type: Option<String>,
    pub(crate) key: String,
    pub(crate) value: Vec<u8>,
}

impl Change {
    pub(crate) fn put(lsn: u64, key: &str, value: &[u8]) -> Change {
        Change {
            lsn,
            version: lsn / 2,
            expires_at: None,
            op: Op::Put,
            cause: Cause::Client,
            media_type: None,
            key: key.to_owned(),
            value: value.to_owned(),
        }
    }

    /// Some change with that number, the same for the same seed.
    pub(crate) fn some(lsn: u64, rng: &mut fastrand::Rng) -> Change {
        let delete = rng.u8(..) < 40;
        let len = match rng.u8(0..10) {
            _ if delete => 0,
            0 => rng.usize(500..3000),
            _ => rng.usize(0..200),
        };
        Change {
            lsn,
            version: rng.u64(..),
            expires_at: rng.bool().then(|| rng.u64(1..)),
            op: if delete { Op::Delete } else { Op::Put },
            cause: if delete && rng.bool() {
                Cause::Evicted
            } else {
                Cause::Client
            },
            media_type: rng.bool().then(|| "text/plain".to_owned()),
            key: format!("key {}", rng.u16(..)),
            value: std::iter::repeat_with(|| rng.u8(..)).take(len).collect(),
        }
    }

    pub(crate) fn of(record: Record<'_>) -> Change {
        assert_eq!(record.value_crc, crc32fast::hash(record.value));
        Change {
            lsn: record.lsn.get(),
            version: record.version,
            expires_at: record.expires_at,
            op: record.op,
            cause: record.cause,
            media_type: record.media_type.map(str::to_owned),
            key: record.key.to_owned(),
            value: record.value.to_owned(),
        }
    }

    pub(crate) fn append(&self, wal: &Wal, lane: usize) {
        let head = RecordHead {
            lsn: Lsn::new(self.lsn),
            version: self.version,
            expires_at: self.expires_at,
            pinned: false,
            value_crc: crc32fast::hash(&self.value),
            op: self.op,
            cause: self.cause,
            media_type: self.media_type.as_deref(),
            key: &self.key,
        };
        let value = if self.value.len() > 1000 {
            Value::Shared(self.value.clone().into())
        } else {
            Value::Inline(&self.value)
        };
        wal.append(lane, &head, value);
    }
}

/// Small segments, every round synced.
pub(crate) fn small() -> Options {
    Options {
        sync: SyncMode::Always,
        segment_bytes: 8 << 10,
        gather: Duration::from_millis(5),
        ..Options::default()
    }
}

/// A new log on `disk`, driven by hand.
pub(crate) fn fresh(disk: &Disk, options: Options) -> (Wal, Writer) {
    let wal = Wal::open(disk.storage(), options, Start::fresh(STORE, 1), 2).expect("a new log");
    let writer = wal.take_writer().expect("nobody has the writer yet");
    (wal, writer)
}

pub(crate) fn recover(
    disk: &Disk,
    mode: RecoveryMode,
    above: u64,
) -> Result<(Vec<Change>, Outcome), RecoveryError> {
    let mut changes = Vec::new();
    let outcome =
        scan(&disk.storage(), &codecs(), mode, Some(STORE))?.replay(Lsn::new(above), |record| {
            changes.push(Change::of(record));
            ControlFlow::Continue(())
        })?;
    Ok((changes, outcome))
}

/// The log goes on after a recovery, `jump` numbers further.
pub(crate) fn resume(
    disk: &Disk,
    outcome: &Outcome,
    options: Options,
    jump: u64,
) -> Result<(Wal, Writer), inflightkv_wal::OpenError> {
    let next = Lsn::new(outcome.seen_lsn.get() + 1 + jump);
    let wal = Wal::open(disk.storage(), options, outcome.start(STORE, next, 1), 2)?;
    let writer = wal.take_writer().expect("nobody has the writer yet");
    Ok((wal, writer))
}

/// Keys of changes, for comparing at a glance.
pub(crate) fn keys(changes: &[Change]) -> Vec<&str> {
    changes.iter().map(|change| change.key.as_str()).collect()
}

/// Zeros as a count, everything else as it is: a record's head is full of zeros.
pub(crate) struct ZeroRuns;

impl ZeroRuns {
    pub(crate) const ID: u8 = 200;
}

impl SegmentCodec for ZeroRuns {
    fn id(&self) -> u8 {
        Self::ID
    }

    fn compress(&self, raw: &[u8], out: &mut Vec<u8>) {
        for run in raw.chunk_by(|a, b| *a == 0 && *b == 0) {
            match run {
                [0, ..] => run
                    .chunks(255)
                    .for_each(|zeros| out.extend([0, zeros.len() as u8])),
                _ => out.extend_from_slice(run),
            }
        }
    }

    fn decompress(
        &self,
        stored: &[u8],
        raw_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let mut bytes = stored.iter();
        while let Some(byte) = bytes.next() {
            let zeros = match byte {
                0 => usize::from(*bytes.next().ok_or_else(|| CodecError::new("cut short"))?),
                _ => 0,
            };
            let len = if *byte == 0 { zeros } else { 1 };
            if out.len() + len > raw_len {
                return Err(CodecError::new(format!("more than {raw_len} bytes")));
            }
            out.resize(out.len() + len, *byte);
        }
        match out.len() == raw_len {
            true => Ok(()),
            false => Err(CodecError::new(format!(
                "{} bytes for {raw_len}",
                out.len()
            ))),
        }
    }
}

/// Everything that the logs of these tests were rewritten with.
pub(crate) fn codecs() -> Codecs {
    Codecs::new([Arc::new(ZeroRuns) as Arc<dyn SegmentCodec>])
}

/// The same log, rewriting what it seals.
pub(crate) fn rewriting(wal: Wal) -> Wal {
    wal.with_codecs(codecs(), Some(Arc::new(ZeroRuns)))
}
