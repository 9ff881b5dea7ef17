//! A disk in memory that forgets what was not synced: under the log and under the snapshots, with every fault from one
//! seed.
//!
//! Each file is kept twice: what a reader sees (the page cache) and what a power cut leaves for certain. A sector of 512
//! bytes is dirty from its write to the sync that follows. Names work likewise: a folder has what is seen, what is
//! durable, and the operations in between.
//!
//! After a failed sync the system may take dirty sectors for clean although they never reached the disk (Rebello et al.,
//! "Can Applications Recover from fsync Failures?", ATC 2020): the reader goes on seeing them, a later sync that succeeds
//! does not write them, and a power cut takes them.

use super::faults::{Area, Call, Fate, Fault, Survival};
use fastrand::Rng;
use inflightkv_snapshot as snapshot;
use inflightkv_wal as wal;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) const SECTOR: usize = 512;

/// The machine with its disk. Clones are the same machine.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Mutex<State>>);

#[derive(Clone)]
struct State {
    folders: [Folder; 2],
    inodes: Vec<Inode>,
    /// Nothing works any more: the crash that was armed has come.
    dead: bool,
    /// Handles of a process that is gone do nothing.
    process: u64,
    /// The machine stops in the middle of the call after so many that change something.
    armed: Option<u8>,
    faults: Vec<Fault>,
    /// Bytes of all files together that there is room for.
    room: Option<u64>,
    delivered: Delivered,
    rng: Rng,
}

/// Errors that were handed out since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// Of calls on the log's folder.
    pub(crate) wal: u32,
    /// Of calls on the snapshots' folder.
    pub(crate) snapshots: u32,
    /// For lack of room, in either.
    pub(crate) no_room: u32,
    /// Of all these, syncs in the log's folder.
    pub(crate) log_syncs: u32,
}

impl Delivered {
    pub(crate) fn total(self) -> u32 {
        self.wal + self.snapshots + self.no_room
    }

    /// Whether what was written to the log is in memory at least.
    pub(crate) fn log_is_whole(self) -> bool {
        self.wal == 0 && self.log_syncs == 0
    }

    pub(crate) fn any(self) -> bool {
        self.total() > 0
    }
}

#[derive(Clone, Default)]
struct Folder {
    seen: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Made(String, usize),
    Removed(String, usize),
    Renamed(String, String, usize),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Change::Made(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Change::Removed(name, inode) => {
                if names.get(name) == Some(inode) {
                    names.remove(name);
                }
            }
            // A rename is seen wholly or not at all, whatever became of the name's own making.
            Change::Renamed(from, to, inode) => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
        }
    }
}

#[derive(Clone, Default)]
struct Inode {
    /// What a reader sees.
    seen: Vec<u8>,
    /// What a power cut leaves for certain.
    durable: Vec<u8>,
    /// Sectors of `seen` that a sync has yet to write.
    dirty: Vec<bool>,
    /// Sectors that the system believes written and that are not.
    dropped: BTreeSet<usize>,
}

impl Inode {
    fn touch(&mut self, from: usize, to: usize) {
        let sectors = self.seen.len().div_ceil(SECTOR);
        self.dirty.resize(sectors, false);
        if from < to {
            for sector in from / SECTOR..to.div_ceil(SECTOR).min(sectors) {
                self.dirty[sector] = true;
                self.dropped.remove(&sector);
            }
        }
    }

    fn resize(&mut self, len: usize) {
        let old = self.seen.len();
        self.seen.resize(len, 0);
        // The sector that the end cuts in two changes with it.
        self.touch(old.min(len).saturating_sub(1), len);
        self.dropped.retain(|sector| sector * SECTOR < len);
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if end > self.seen.len() {
            self.resize(end);
        }
        self.seen[offset..end].copy_from_slice(bytes);
        self.touch(offset, end);
    }

    fn sync_sector(&mut self, sector: usize) {
        let range = sector * SECTOR..((sector + 1) * SECTOR).min(self.seen.len());
        if self.durable.len() < range.end {
            self.durable.resize(range.end, 0);
        }
        self.durable[range.clone()].copy_from_slice(&self.seen[range]);
        self.dirty[sector] = false;
    }

    fn sync(&mut self) {
        if self.dropped.is_empty() {
            self.durable.clone_from(&self.seen);
            self.dirty.fill(false);
            return;
        }
        self.durable.resize(self.seen.len(), 0);
        for sector in 0..self.dirty.len() {
            if self.dirty[sector] {
                self.sync_sector(sector);
            }
        }
    }

    /// A sync that failed: of the dirty sectors some were written, some stay dirty, and some are taken for clean.
    fn sync_failed(&mut self, rng: &mut Rng) {
        for sector in 0..self.dirty.len() {
            if self.dirty[sector] {
                match rng.u8(0..3) {
                    0 => self.sync_sector(sector),
                    1 => {}
                    _ => {
                        self.dirty[sector] = false;
                        self.dropped.insert(sector);
                    }
                }
            }
        }
    }

    /// The memory that held what the disk never got is used for something else.
    fn evict_dropped(&mut self, rng: &mut Rng) {
        for sector in std::mem::take(&mut self.dropped) {
            if rng.bool() {
                self.dropped.insert(sector);
                continue;
            }
            let range = sector * SECTOR..((sector + 1) * SECTOR).min(self.seen.len());
            for at in range {
                self.seen[at] = self.durable.get(at).copied().unwrap_or(0);
            }
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the machine is off")
}

fn index(area: Area) -> usize {
    match area {
        Area::Wal => 0,
        Area::Snapshots => 1,
    }
}

impl State {
    /// What becomes of a call.
    fn enter(&mut self, area: Area, call: Call, process: u64) -> Fate {
        if self.dead || process != self.process {
            return Fate::Fails(gone());
        }
        if call.changes()
            && let Some(armed) = &mut self.armed
        {
            if *armed == 0 {
                self.dead = true;
                return Fate::Partly(gone());
            }
            *armed -= 1;
        }
        for at in 0..self.faults.len() {
            let Some(error) = self.faults[at].strikes(area, call) else {
                continue;
            };
            if self.faults[at].is_spent() {
                self.faults.remove(at);
            }
            self.delivered.log_syncs += u32::from((area, call) == (Area::Wal, Call::Sync));
            match (error.kind(), area) {
                (io::ErrorKind::StorageFull, _) => self.delivered.no_room += 1,
                (_, Area::Wal) => self.delivered.wal += 1,
                (_, Area::Snapshots) => self.delivered.snapshots += 1,
            }
            return Fate::Partly(error);
        }
        Fate::Goes
    }

    fn has_room_for(&mut self, more: usize) -> bool {
        let Some(room) = self.room else { return true };
        let fits = self.used() + more as u64 <= room;
        self.delivered.no_room += u32::from(!fits);
        fits
    }

    fn used(&self) -> u64 {
        self.folders
            .iter()
            .flat_map(|folder| folder.seen.values())
            .map(|inode| self.inodes[*inode].seen.len() as u64)
            .sum()
    }

    fn change(&mut self, area: Area, change: Change) {
        let folder = &mut self.folders[index(area)];
        change.apply(&mut folder.seen);
        folder.pending.push(change);
    }

    fn sync_folder(&mut self, area: Area, operations: usize) {
        let folder = &mut self.folders[index(area)];
        for change in folder.pending.drain(..operations) {
            change.apply(&mut folder.durable);
        }
    }

    /// Goes on with what the system had: the process was killed, or its machine is another attempt at the same disk.
    fn restart(&mut self) {
        self.dead = false;
        self.armed = None;
        self.process += 1;
        self.delivered = Delivered::default();
    }

    fn lose_power(&mut self, survival: &Survival) {
        let mut rng = Rng::with_seed(survival.seed.into());
        for folder in &mut self.folders {
            let pending = std::mem::take(&mut folder.pending);
            for change in pending {
                if rng.u8(0..100) < survival.names {
                    change.apply(&mut folder.durable);
                }
            }
            folder.seen.clone_from(&folder.durable);
        }
        let named: BTreeSet<usize> = self
            .folders
            .iter()
            .flat_map(|folder| folder.seen.values().copied())
            .collect();
        let stale: Vec<Vec<u8>> = match survival.garbage {
            0 => Vec::new(),
            _ => self
                .inodes
                .iter()
                .map(|inode| inode.seen.clone())
                .filter(|bytes| !bytes.is_empty())
                .collect(),
        };
        for (number, inode) in self.inodes.iter_mut().enumerate() {
            if named.contains(&number) {
                // Its own stream, so that one file's length does not decide another's fate.
                let mut rng = Rng::with_seed(
                    u64::from(survival.seed)
                        ^ (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
                );
                survive(inode, survival, &stale, &mut rng);
            } else {
                *inode = Inode::default();
            }
        }
    }
}

/// What a power cut makes of one file.
fn survive(inode: &mut Inode, survival: &Survival, stale: &[Vec<u8>], rng: &mut Rng) {
    let (old_len, new_len) = (inode.durable.len(), inode.seen.len());
    let len = match rng.u8(0..4) {
        _ if old_len == new_len => new_len,
        0 => old_len,
        1 if old_len < new_len => rng.usize(old_len..=new_len),
        _ => new_len,
    };
    let mut bytes = vec![0; len];
    for sector in 0..len.div_ceil(SECTOR) {
        let start = sector * SECTOR;
        let end = (start + SECTOR).min(len);
        let old = |at: usize| inode.durable.get(at).copied().unwrap_or(0);
        let new = |at: usize| inode.seen.get(at).copied().unwrap_or(0);
        let is_dirty =
            inode.dirty.get(sector).copied().unwrap_or(false) && !inode.dropped.contains(&sector);
        let never_synced = start >= old_len;
        if !is_dirty || rng.u8(0..100) >= survival.sectors {
            let garbage = is_dirty && never_synced && rng.u8(0..100) < survival.garbage;
            let source = if garbage && !stale.is_empty() {
                rng.choice(stale)
            } else {
                None
            };
            for (at, byte) in (start..end).zip(&mut bytes[start..end]) {
                *byte = match source {
                    _ if !garbage => old(at),
                    Some(other) => other.get(at).copied().unwrap_or(0),
                    None => rng.u8(..),
                };
            }
        } else {
            // Torn at any byte, from either side; a tear at the edge is none.
            let tear = if rng.u8(0..100) < survival.torn {
                rng.usize(0..=SECTOR)
            } else {
                SECTOR
            };
            let front_is_new = tear == SECTOR || rng.bool();
            for (at, byte) in (start..end).zip(&mut bytes[start..end]) {
                *byte = if (at - start < tear) == front_is_new {
                    new(at)
                } else {
                    old(at)
                };
            }
        }
    }
    inode.seen.clone_from(&bytes);
    inode.durable = bytes;
    inode.dirty = vec![false; len.div_ceil(SECTOR)];
    inode.dropped.clear();
}

impl Disk {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            folders: [Folder::default(), Folder::default()],
            inodes: Vec::new(),
            dead: false,
            process: 1,
            armed: None,
            faults: Vec::new(),
            room: None,
            delivered: Delivered::default(),
            rng: Rng::with_seed(seed),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a process that starts now is given.
    pub(crate) fn storage(&self) -> (Arc<dyn wal::Storage>, Arc<dyn snapshot::Storage>) {
        let process = self.lock().process;
        let view = |area| {
            Arc::new(View {
                disk: self.clone(),
                area,
                process,
            })
        };
        (view(Area::Wal), view(Area::Snapshots))
    }

    /// The machine stops at a call to come.
    pub(crate) fn arm(&self, calls: u8) {
        self.lock().armed = Some(calls);
    }

    /// It does not stop at a call to come.
    pub(crate) fn disarm(&self) {
        self.lock().armed = None;
    }

    /// From here on errors are counted anew.
    pub(crate) fn forget_delivered(&self) {
        self.lock().delivered = Delivered::default();
    }

    pub(crate) fn add_fault(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    pub(crate) fn clear_faults(&self) {
        let mut state = self.lock();
        state.faults.clear();
        state.room = None;
    }

    /// Leaves room for so many bytes more.
    pub(crate) fn fill_up(&self, left: u64) {
        let mut state = self.lock();
        state.room = Some(state.used() + left);
    }

    pub(crate) fn make_room(&self) {
        let mut state = self.lock();
        state.room = None;
        state.faults.retain(|fault| !fault.is_lack_of_room());
    }

    /// Whether something is in store that makes calls fail.
    pub(crate) fn is_troubled(&self) -> bool {
        let state = self.lock();
        state.room.is_some() || !state.faults.is_empty()
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.lock().dead
    }

    pub(crate) fn delivered(&self) -> Delivered {
        self.lock().delivered
    }

    /// The process is killed: everything it handed over is still seen, and still not synced.
    pub(crate) fn kill(&self) {
        let mut state = self.lock();
        let mut rng = state.rng.fork();
        for inode in &mut state.inodes {
            inode.evict_dropped(&mut rng);
        }
        state.restart();
    }

    /// The power fails: what was not synced is there or not, sector by sector and name by name.
    pub(crate) fn lose_power(&self, survival: &Survival) {
        let mut state = self.lock();
        state.lose_power(survival);
        state.restart();
    }
}

/// One folder, as one process sees it.
struct View {
    disk: Disk,
    area: Area,
    process: u64,
}

/// One open file of one process.
struct Handle {
    disk: Disk,
    area: Area,
    process: u64,
    inode: usize,
}

impl View {
    fn handle(&self, inode: usize) -> Handle {
        Handle {
            disk: self.disk.clone(),
            area: self.area,
            process: self.process,
            inode,
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.disk.lock();
        state.enter(self.area, Call::Read, self.process).or_fail()?;
        Ok(state.folders[index(self.area)]
            .seen
            .keys()
            .cloned()
            .collect())
    }

    fn create(&self, name: &str) -> io::Result<Handle> {
        let mut state = self.disk.lock();
        let fate = state.enter(self.area, Call::Create, self.process);
        if state.folders[index(self.area)].seen.contains_key(name) {
            fate.or_fail()?;
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if fate.happens(&mut state.rng) {
            state.inodes.push(Inode::default());
            let inode = state.inodes.len() - 1;
            state.change(self.area, Change::Made(name.to_owned(), inode));
        }
        fate.or_fail()?;
        Ok(self.handle(state.inodes.len() - 1))
    }

    fn open(&self, name: &str) -> io::Result<Handle> {
        let mut state = self.disk.lock();
        state.enter(self.area, Call::Read, self.process).or_fail()?;
        let inode = state.folders[index(self.area)].seen.get(name).copied();
        inode
            .map(|inode| self.handle(inode))
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.disk.lock();
        let fate = state.enter(self.area, Call::Remove, self.process);
        let Some(&inode) = state.folders[index(self.area)].seen.get(name) else {
            fate.or_fail()?;
            return Err(io::ErrorKind::NotFound.into());
        };
        if fate.happens(&mut state.rng) {
            state.change(self.area, Change::Removed(name.to_owned(), inode));
        }
        fate.or_fail()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.disk.lock();
        let fate = state.enter(self.area, Call::Rename, self.process);
        let Some(&inode) = state.folders[index(self.area)].seen.get(from) else {
            fate.or_fail()?;
            return Err(io::ErrorKind::NotFound.into());
        };
        if fate.happens(&mut state.rng) {
            state.change(
                self.area,
                Change::Renamed(from.to_owned(), to.to_owned(), inode),
            );
        }
        fate.or_fail()
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        let fate = state.enter(self.area, Call::SyncDir, self.process);
        let pending = state.folders[index(self.area)].pending.len();
        let done = match &fate {
            Fate::Goes => pending,
            Fate::Partly(_) => state.rng.usize(0..=pending),
            Fate::Fails(_) => 0,
        };
        state.sync_folder(self.area, done);
        fate.or_fail()
    }
}

impl Handle {
    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        let fate = state.enter(self.area, Call::Allocate, self.process);
        let len = len as usize;
        let old = state.inodes[self.inode].seen.len();
        if matches!(fate, Fate::Goes) && !state.has_room_for(len.saturating_sub(old)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if len > old && fate.happens(&mut state.rng) {
            state.inodes[self.inode].resize(len);
        }
        fate.or_fail()
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.lock();
        let fate = state.enter(self.area, Call::Write, self.process);
        let offset = offset as usize;
        let growth = (offset + bytes.len()).saturating_sub(state.inodes[self.inode].seen.len());
        let fate = match fate {
            Fate::Goes if growth > 0 && !state.has_room_for(growth) => {
                Fate::Partly(io::ErrorKind::StorageFull.into())
            }
            fate => fate,
        };
        let done = match &fate {
            Fate::Goes => bytes.len(),
            Fate::Partly(_) => state.rng.usize(0..=bytes.len()),
            Fate::Fails(_) => 0,
        };
        if done > 0 {
            state.inodes[self.inode].write(offset, &bytes[..done]);
        }
        fate.or_fail()
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        let fate = state.enter(self.area, Call::Sync, self.process);
        let State {
            inodes, rng, dead, ..
        } = &mut *state;
        let inode = &mut inodes[self.inode];
        match &fate {
            Fate::Goes => inode.sync(),
            // The power failed while it ran: done, or as if it had not been called.
            Fate::Partly(_) if *dead => {
                if rng.bool() {
                    inode.sync();
                }
            }
            Fate::Partly(_) => inode.sync_failed(rng),
            Fate::Fails(_) => {}
        }
        fate.or_fail()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        let fate = state.enter(self.area, Call::SetLen, self.process);
        if fate.happens(&mut state.rng) {
            state.inodes[self.inode].resize(len as usize);
        }
        fate.or_fail()
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.lock();
        state.enter(self.area, Call::Read, self.process).or_fail()?;
        Ok(state.inodes[self.inode].seen.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.enter(self.area, Call::Read, self.process).or_fail()?;
        let offset = offset as usize;
        let source = state.inodes[self.inode]
            .seen
            .get(offset..offset + buffer.len());
        buffer.copy_from_slice(source.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl wal::Storage for View {
    fn list(&self) -> io::Result<Vec<String>> {
        self.list()
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn wal::SegmentFile>> {
        Ok(Box::new(self.create(name)?))
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn wal::SegmentFile>> {
        Ok(Box::new(self.open(name)?))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.rename(from, to)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.sync_dir()
    }
}

impl wal::SegmentFile for Handle {
    fn allocate(&mut self, len: u64) -> io::Result<()> {
        Handle::allocate(self, len)
    }
    fn write_at(&mut self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        Handle::write_at(self, offset, &bytes)
    }
    fn sync_data(&mut self) -> io::Result<()> {
        self.sync()
    }
    fn set_len(&mut self, len: u64) -> io::Result<()> {
        Handle::set_len(self, len)
    }
    fn len(&self) -> io::Result<u64> {
        self.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_at(offset, buf)
    }
}

impl snapshot::Storage for View {
    fn list(&self) -> io::Result<Vec<String>> {
        self.list()
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn snapshot::File>> {
        Ok(Box::new(self.create(name)?))
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn snapshot::File>> {
        Ok(Box::new(self.open(name)?))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.sync_dir()
    }
}

impl snapshot::File for Handle {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        Handle::write_at(self, offset, bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        Handle::sync(self)
    }
    fn len(&self) -> io::Result<u64> {
        Handle::len(self)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        Handle::read_at(self, offset, buffer)
    }
}
