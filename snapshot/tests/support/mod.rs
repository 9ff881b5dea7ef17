//! A disk in memory that fails on demand and forgets what was not synced, and short ways to write and
//! load snapshots on it.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test crates, each of which uses a part of it"
)]

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard};

use inflightkv_snapshot::{
    BackupEncoder, BackupHeader, BlockBuilder, BlockCodec, CodecError, EntryRef, File, LoadError,
    Manifest, Options, Parent, Plan, SnapshotWriter, Storage, WriteError, load_part,
};

pub const STORE: [u8; 16] = *b"the store's name";

// ---- the disk ----

/// Clones share the disk.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending: Vec<NameChange>,
    calls: u64,
    fail_from: Option<u64>,
    fail_once: bool,
}

#[derive(Clone, Default)]
struct Inode {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(u64, Vec<u8>)>,
}

#[derive(Clone)]
enum NameChange {
    Add(String, usize),
    Remove(String),
    Rename(String, String, usize),
}

fn change(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    match change {
        NameChange::Add(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        NameChange::Remove(name) => {
            names.remove(name);
        }
        NameChange::Rename(from, to, inode) => {
            names.remove(from);
            names.insert(to.clone(), *inode);
        }
    }
}

fn write(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let (start, end) = (offset as usize, offset as usize + data.len());
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[start..end].copy_from_slice(data);
}

impl State {
    /// Counts a call that changes the disk; from the chosen one on (or only then) it fails.
    fn call(&mut self) -> io::Result<()> {
        let now = self.calls;
        self.calls += 1;
        match self.fail_from {
            Some(at) if now == at || (now > at && !self.fail_once) => {
                Err(io::Error::other("the disk was told to fail"))
            }
            _ => Ok(()),
        }
    }
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds this")
    }

    pub fn shared(&self) -> Arc<dyn Storage> {
        Arc::new(self.clone())
    }

    /// An independent disk with the same files, all of them durable.
    pub fn copy(&self) -> Self {
        let copy = Self::default();
        for name in self.files() {
            copy.put(&name, self.get(&name));
        }
        copy
    }

    /// The `n`th changing call from now on fails; later ones too, unless `once`.
    pub fn fail_at(&self, n: u64, once: bool) {
        let mut state = self.state();
        state.fail_from = Some(state.calls + n);
        state.fail_once = once;
    }

    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// What a power cut leaves: all that was synced, and of the rest any selection.
    pub fn after_power_cut(&self, random: &mut fastrand::Rng) -> Self {
        let state = self.state();
        let mut names = state.durable_names.clone();
        for pending in &state.pending {
            if random.bool() {
                change(&mut names, pending);
            }
        }
        let left = Self::default();
        for (name, inode) in names {
            let inode = &state.inodes[inode];
            let mut bytes = inode.durable.clone();
            for (offset, data) in &inode.pending {
                let kept = random.usize(0..=data.len());
                if random.bool() {
                    write(&mut bytes, *offset, &data[..kept]);
                }
            }
            left.put(&name, bytes);
        }
        left
    }

    pub fn files(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    pub fn get(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.inodes[state.names[name]].bytes.clone()
    }

    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        let inode = state.inodes.len();
        state.inodes.push(Inode {
            durable: bytes.clone(),
            bytes,
            pending: Vec::new(),
        });
        state.names.insert(name.to_owned(), inode);
        state.durable_names.insert(name.to_owned(), inode);
    }

    pub fn delete(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name).expect("a file to delete");
        state.durable_names.remove(name);
    }
}

impl Storage for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        state.call()?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.names.insert(name.to_owned(), inode);
        state.pending.push(NameChange::Add(name.to_owned(), inode));
        drop(state);
        Ok(Box::new(Open(self.clone(), inode)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let inode = self.state().names.get(name).copied();
        let inode = inode.ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Open(self.clone(), inode)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        let inode = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        let renamed = NameChange::Rename(from.to_owned(), to.to_owned(), inode);
        change(&mut state.names, &renamed);
        state.pending.push(renamed);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.pending.push(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        state.durable_names = state.names.clone();
        state.pending.clear();
        Ok(())
    }
}

struct Open(Disk, usize);

impl File for Open {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.state();
        state.call()?;
        let inode = &mut state.inodes[self.1];
        write(&mut inode.bytes, offset, bytes);
        inode.pending.push((offset, bytes.to_vec()));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.0.state();
        state.call()?;
        let inode = &mut state.inodes[self.1];
        inode.durable = inode.bytes.clone();
        inode.pending.clear();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.state().inodes[self.1].bytes.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let state = self.0.state();
        let found = usize::try_from(offset)
            .ok()
            .and_then(|start| state.inodes[self.1].bytes.get(start..)?.get(..buffer.len()))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        Ok(())
    }
}

// ---- a codec ----

/// Run lengths: (count, byte) pairs. Small, and enough to see codecs at work.
pub struct RunLength;

impl RunLength {
    pub const ID: u8 = 200;
}

impl BlockCodec for RunLength {
    fn id(&self) -> u8 {
        Self::ID
    }

    fn compress(&self, raw: &[u8], out: &mut Vec<u8>) {
        for run in raw.chunk_by(|a, b| a == b).flat_map(|run| run.chunks(255)) {
            out.extend_from_slice(&[run.len() as u8, run[0]]);
        }
    }

    fn decompress(
        &self,
        stored: &[u8],
        raw_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let decoded: usize = stored.chunks(2).map(|pair| usize::from(pair[0])).sum();
        if decoded != raw_len || !stored.len().is_multiple_of(2) {
            return Err(CodecError::new(format!("{decoded} bytes for {raw_len}")));
        }
        for pair in stored.chunks(2) {
            out.resize(out.len() + usize::from(pair[0]), pair[1]);
        }
        Ok(())
    }
}

pub const CODECS: &[&dyn BlockCodec] = &[&RunLength];

// ---- states, snapshots ----

/// An entry with a home; a tombstone has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub sequence: u64,
    pub version: u64,
    pub expires_at: Option<u64>,
    pub media_type: Option<String>,
    pub key: String,
    pub value: Option<Vec<u8>>,
}

impl Entry {
    pub fn new(sequence: u64, key: &str, value: &str) -> Self {
        Self {
            sequence,
            version: sequence % 7,
            expires_at: None,
            media_type: None,
            key: key.to_owned(),
            value: Some(value.as_bytes().to_vec()),
        }
    }

    pub fn deleted(sequence: u64, key: &str) -> Self {
        Self {
            version: 0,
            value: None,
            ..Self::new(sequence, key, "")
        }
    }

    pub fn as_ref(&self) -> EntryRef<'_> {
        let Some(value) = &self.value else {
            return EntryRef::deleted(&self.key, self.sequence);
        };
        EntryRef {
            sequence: self.sequence,
            version: self.version,
            expires_at: self.expires_at,
            pinned: false,
            value_crc: crc32fast::hash(value),
            tombstone: false,
            media_type: self.media_type.as_deref(),
            key: &self.key,
            value,
        }
    }

    pub fn of(entry: EntryRef<'_>) -> Self {
        Self {
            sequence: entry.sequence,
            version: entry.version,
            expires_at: entry.expires_at,
            media_type: entry.media_type.map(str::to_owned),
            key: entry.key.to_owned(),
            value: (!entry.tombstone).then(|| entry.value.to_vec()),
        }
    }
}

pub fn small_blocks() -> Options {
    Options {
        block_bytes: 4096,
        ..Options::default()
    }
}

pub fn plan(id: u64, parent: Option<&Manifest>, cut: u64, parts: usize) -> Plan {
    Plan {
        store_id: STORE,
        id,
        parent: parent.map(Parent::from),
        cut,
        created_at_ms: 1_700_000_000_000 + id,
        partitions: 128,
        parts,
    }
}

/// Writes a whole snapshot, its entries dealt out among the parts.
pub fn save(
    disk: &Disk,
    plan: Plan,
    codec: Arc<dyn BlockCodec>,
    entries: &[Entry],
) -> Result<Manifest, WriteError> {
    let mut writer = SnapshotWriter::begin(disk.shared(), plan, codec, small_blocks())?;
    let mut parts = Vec::new();
    for number in 0..plan.parts {
        let mut part = writer.part(number)?;
        let mut builder = writer.block_builder();
        for entry in entries.iter().skip(number).step_by(plan.parts) {
            if builder
                .push(entry.as_ref())
                .expect("an entry within limits")
            {
                part.write(builder.take())?;
            }
        }
        part.write(builder.take())?;
        parts.push(part);
    }
    writer.finish(parts)
}

/// Every entry of one snapshot, by key.
pub fn entries_of(disk: &Disk, manifest: &Manifest) -> Result<Vec<Entry>, LoadError> {
    let mut entries = Vec::new();
    for part in 0..manifest.parts.len() {
        load_part(disk, manifest, part, CODECS, |entry| {
            entries.push(Entry::of(entry));
            ControlFlow::Continue(())
        })?;
    }
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(entries)
}

/// The state that a chain of snapshots adds up to.
pub fn state_of(disk: &Disk, chain: &[Manifest]) -> Result<BTreeMap<String, Entry>, LoadError> {
    let mut state = BTreeMap::new();
    for manifest in chain {
        for entry in entries_of(disk, manifest)? {
            if entry.value.is_some() {
                state.insert(entry.key.clone(), entry);
            } else {
                state.remove(&entry.key);
            }
        }
    }
    Ok(state)
}

/// A whole backup, in blocks as small as they get.
pub fn backup(cut: u64, codec: Arc<dyn BlockCodec>, entries: &[Entry]) -> Vec<u8> {
    let header = BackupHeader {
        store_id: STORE,
        cut,
        created_at_ms: 1_700_000_000_000,
        partitions: 4,
    };
    let (mut encoder, mut bytes) = BackupEncoder::begin(header, codec);
    let mut builder = BlockBuilder::new(small_blocks());
    for entry in entries {
        if builder
            .push(entry.as_ref())
            .expect("an entry within limits")
        {
            bytes.extend(encoder.block(builder.take()).expect("a sound block"));
        }
    }
    bytes.extend(encoder.block(builder.take()).expect("a sound block"));
    bytes.extend(encoder.end());
    bytes
}
