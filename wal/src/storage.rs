//! Where segments live: the plug, real files behind it, and the one place where a failed file stops taking bytes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use crate::names;

/// A flat directory of files. Implemented by [`Directory`], and by tests with disks that fail.
pub trait Storage: Send + Sync {
    /// Names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes a file for reading and writing; `AlreadyExists` if there is one.
    fn create(&self, name: &str) -> io::Result<Box<dyn SegmentFile>>;
    /// Opens a file for reading and writing; `NotFound` if there is none.
    fn open(&self, name: &str) -> io::Result<Box<dyn SegmentFile>>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Renames a file, in one step, in place of any other of the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes files made, renamed and removed so far durable.
    fn sync_dir(&self) -> io::Result<()>;
}

/// One open file.
pub trait SegmentFile: Send {
    /// Reserves room up to `len` and makes the file that long, zeros included. Does nothing where that cannot be done in advance.
    fn allocate(&mut self, len: u64) -> io::Result<()>;
    /// Writes `parts` one after the other from `offset` on: all of it, or an error.
    fn write_at(&mut self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()>;
    /// Makes the bytes and the length durable.
    fn sync_data(&mut self) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_len(&mut self, len: u64) -> io::Result<()>;
    /// Length of the file.
    fn len(&self) -> io::Result<u64>;
    /// Fills `buf` from `offset` on; `UnexpectedEof` if the file ends before.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A directory of the file system.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Held open for syncing.
    handle: File,
    /// Locked for as long as this value lives; none for reading only.
    lock: Option<File>,
}

impl Directory {
    /// Opens the directory at `path`, makes it if need be, and locks it: `WouldBlock` if another process has it.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Directory> {
        let path = path.as_ref();
        if !path.is_dir() {
            fs::create_dir_all(path)?;
            // The new directory's own name has to survive a power cut as well.
            let parent = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        let lock = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(path.join(names::LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    format!("the log in {} is used by another process", path.display()),
                ));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        Ok(Directory {
            path: path.to_owned(),
            handle: File::open(path)?,
            lock: Some(lock),
        })
    }

    /// Opens the directory at `path` for looking only: takes no lock, refuses every change.
    pub fn open_read_only(path: impl AsRef<Path>) -> io::Result<Directory> {
        Ok(Directory {
            path: path.as_ref().to_owned(),
            handle: File::open(path.as_ref())?,
            lock: None,
        })
    }

    fn writable(&self) -> io::Result<()> {
        if self.lock.is_some() {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "the log in {} is open for reading only",
                self.path.display()
            ),
        ))
    }
}

impl Storage for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            // A name that is not text is none of ours, and no directory is.
            if let (Ok(name), true) = (
                entry.file_name().into_string(),
                entry.file_type()?.is_file(),
            ) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn SegmentFile>> {
        self.writable()?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(self.path.join(name))?;
        Ok(Box::new(RealFile { file }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn SegmentFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(self.lock.is_some())
            .open(self.path.join(name))?;
        Ok(Box::new(RealFile { file }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.writable()?;
        fs::remove_file(self.path.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.writable()?;
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

/// One file of the file system, for the offline tools.
pub(crate) fn open_read_only(path: &Path) -> io::Result<Box<dyn SegmentFile>> {
    Ok(Box::new(RealFile {
        file: File::open(path)?,
    }))
}

struct RealFile {
    file: File,
}

impl SegmentFile for RealFile {
    fn allocate(&mut self, len: u64) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            use rustix::io::Errno;
            loop {
                match rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::empty(), 0, len)
                {
                    // A file system that cannot reserve is used without: then a full disk shows at the write.
                    Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = len;
            Ok(())
        }
    }

    fn write_at(&mut self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let mut done = 0;
        #[cfg(target_os = "linux")]
        if parts.len() > 1 {
            loop {
                match rustix::io::pwritev(&self.file, parts, offset) {
                    Ok(written) => {
                        done = written;
                        break;
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        // What the one call left over, which is nothing unless it was interrupted or ran out of room.
        let mut at = 0;
        for part in parts {
            if at + part.len() > done {
                let skip = done.saturating_sub(at);
                self.file
                    .write_all_at(&part[skip..], offset + (at + skip) as u64)?;
            }
            at += part.len();
        }
        Ok(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, buf, offset)
    }
}

/// A file that takes nothing more after a write or a sync of it failed. After a failed sync the kernel may have
/// marked lost pages as clean, so a second sync that succeeds would prove nothing (Rebello et al., "Can Applications
/// Recover from fsync Failures?", ATC 2020).
pub(crate) struct CheckedFile {
    file: Box<dyn SegmentFile>,
    health: Health,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Health {
    Sound,
    /// A write was refused before it was done. What was written before is not in doubt.
    Refused,
    Failed,
}

impl CheckedFile {
    pub(crate) fn new(file: Box<dyn SegmentFile>) -> CheckedFile {
        CheckedFile {
            file,
            health: Health::Sound,
        }
    }

    pub(crate) fn allocate(&mut self, len: u64) -> io::Result<()> {
        self.guard(Health::Sound)?;
        let result = self.file.allocate(len);
        self.watch(result)
    }

    pub(crate) fn write_at(&mut self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.guard(Health::Sound)?;
        let result = self.file.write_at(offset, parts);
        if let Err(error) = &result
            && is_out_of_space(error)
        {
            self.health = Health::Refused;
            return result;
        }
        self.watch(result)
    }

    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.guard(Health::Sound)?;
        let result = self.file.sync_data();
        self.watch(result)
    }

    /// Ends the file at `len` for good. Also allowed after a write was refused for lack of space.
    pub(crate) fn seal(&mut self, len: u64) -> io::Result<()> {
        self.guard(Health::Refused)?;
        let result = self.file.set_len(len).and_then(|()| self.file.sync_data());
        self.watch(result)
    }

    fn guard(&self, worst: Health) -> io::Result<()> {
        if self.health == Health::Sound || self.health == worst {
            return Ok(());
        }
        Err(io::Error::other(
            "the file takes nothing more after an earlier failure",
        ))
    }

    fn watch(&mut self, result: io::Result<()>) -> io::Result<()> {
        if result.is_err() {
            self.health = Health::Failed;
        }
        result
    }
}

/// Disk full or quota used up.
pub(crate) fn is_out_of_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// The process or the machine is short of something for the moment; making a file later may work.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    error.kind() == io::ErrorKind::OutOfMemory
        || [Errno::MFILE, Errno::NFILE, Errno::NOMEM]
            .iter()
            .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
