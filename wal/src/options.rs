//! What a caller can choose about a log, and which values make sense.

use std::time::Duration;

/// When records are made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncMode {
    /// Every round of the writer ends with a sync. Whoever arrives while one runs shares the next.
    Always,
    /// A sync once the oldest unsynced write is this old. A power cut takes at most about that much.
    Interval(Duration),
    /// Left to the kernel, except when a segment is sealed, at shutdown, and on request.
    Os,
}

/// Options of a log. [`Options::check`] names a value that makes no sense; [`crate::Wal::open`] refuses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// When records are made durable. Default: every second.
    pub sync: SyncMode,
    /// A segment is sealed before it grows beyond this. Larger ones mean fewer files and syncs, smaller ones
    /// give room back sooner after a snapshot. Twice this is reserved on disk. Default 64 MiB; 8 KiB to 16 GiB.
    pub segment_bytes: u64,
    /// A segment with records is sealed at this age, looked at whenever the writer has something to do: an idle log is
    /// left alone. Default 1 hour; at least 1 ms.
    pub segment_age: Duration,
    /// Segments that a checkpoint made superfluous are kept until their last record is this old. Longer makes it possible to go
    /// back further, and costs that much disk. Default 0: they go at once.
    pub keep: Duration,
    /// Bytes handed over and not yet written, from which on [`crate::Wal::admit`] says no. More rides out a longer
    /// stall of the disk, and costs that much memory. Default 64 MiB; 1 KiB to 64 GiB.
    pub queue_bytes_max: u64,
    /// How long the writer gathers between two rounds, unless every round syncs. Longer means fewer system calls and a later
    /// hand-over to the kernel: what a killed process loses. Default 5 ms; at most 10 s.
    pub gather: Duration,
    /// A lane with this many bytes ends the gathering. Default 256 KiB; at least 1 KiB.
    pub gather_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            sync: SyncMode::Interval(Duration::from_secs(1)),
            segment_bytes: 64 << 20,
            segment_age: Duration::from_secs(3600),
            keep: Duration::ZERO,
            queue_bytes_max: 64 << 20,
            gather: Duration::from_millis(5),
            gather_bytes: 256 << 10,
        }
    }
}

/// An option has a value that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option} is {found}, allowed are {allowed}")]
pub struct OptionError {
    /// Name of the field.
    pub option: &'static str,
    /// Its value.
    pub found: String,
    /// What it can be.
    pub allowed: &'static str,
}

impl Options {
    /// The first value that makes no sense.
    pub fn check(&self) -> Result<(), OptionError> {
        let wrong = |option, found, allowed| {
            Err(OptionError {
                option,
                found,
                allowed,
            })
        };
        if let SyncMode::Interval(interval) = self.sync
            && !(Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&interval)
        {
            return wrong("sync", format!("{interval:?}"), "intervals of 1 ms to 1 h");
        }
        if !(8 << 10..=16 << 30).contains(&self.segment_bytes) {
            return wrong(
                "segment_bytes",
                self.segment_bytes.to_string(),
                "8 KiB to 16 GiB",
            );
        }
        if self.segment_age < Duration::from_millis(1) {
            return wrong(
                "segment_age",
                format!("{:?}", self.segment_age),
                "1 ms and more",
            );
        }
        if !(1 << 10..=64 << 30).contains(&self.queue_bytes_max) {
            return wrong(
                "queue_bytes_max",
                self.queue_bytes_max.to_string(),
                "1 KiB to 64 GiB",
            );
        }
        if self.gather > Duration::from_secs(10) {
            return wrong("gather", format!("{:?}", self.gather), "0 to 10 s");
        }
        if self.gather_bytes < 1 << 10 {
            return wrong(
                "gather_bytes",
                self.gather_bytes.to_string(),
                "1 KiB and more",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_make_sense() {
        assert_eq!(Options::default().check(), Ok(()));
    }

    #[test]
    fn a_value_that_makes_no_sense_is_named() {
        type Spoil = fn(&mut Options);
        let cases: [(&str, Spoil); 6] = [
            ("sync", |o| o.sync = SyncMode::Interval(Duration::ZERO)),
            ("segment_bytes", |o| o.segment_bytes = 100),
            ("segment_age", |o| o.segment_age = Duration::ZERO),
            ("queue_bytes_max", |o| o.queue_bytes_max = 0),
            ("gather", |o| o.gather = Duration::from_secs(60)),
            ("gather_bytes", |o| o.gather_bytes = 0),
        ];
        for (option, spoil) in cases {
            let mut options = Options::default();
            spoil(&mut options);
            assert_eq!(options.check().map_err(|error| error.option), Err(option));
        }
    }
}
