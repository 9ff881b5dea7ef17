//! Where two crates that never heard of each other are joined: a codec as the snapshot's block codec and as the log's
//! segment codec, prefixes of keys as codes of a partition, numbers of the log as numbers of the store.

use super::options::WalCompression;
use inflightkv_compression::keys::KeyDictionary;
use inflightkv_compression::{Codec, Lz4, Snappy, Zstd};
use inflightkv_core::{KeyCode, LoadedEntry, Sequence};
use inflightkv_snapshot::{BlockCodec, CodecError, EntryRef};
use inflightkv_wal::{self as wal, Lsn, SegmentCodec};
use std::sync::Arc;

/// The store's sequence is the log's LSN.
pub(crate) fn lsn(sequence: Sequence) -> Lsn {
    Lsn::new(sequence.get())
}

/// The log's LSN is the store's sequence.
pub(crate) fn sequence(lsn: Lsn) -> Sequence {
    Sequence::from_raw(lsn.get())
}

/// An entry of a snapshot or a backup, for a partition to load.
pub fn loaded<'a>(entry: &EntryRef<'a>) -> LoadedEntry<'a> {
    LoadedEntry {
        key: entry.key,
        value: entry.value,
        media_type: entry.media_type,
        crc: entry.value_crc,
        version: entry.version,
        sequence: Sequence::from_raw(entry.sequence),
        expires_at: entry.expires_at,
        pinned: entry.pinned,
    }
}

/// Prefixes of keys, as what the codes of a partition stand for.
#[derive(Debug, Default)]
pub(crate) struct Prefixes(pub(crate) KeyDictionary);

impl KeyCode for Prefixes {
    fn prefix(&self, code: u8) -> &str {
        self.0.prefix(code)
    }
}

/// A codec of the `compression` crate under its fixed number.
struct Block<C>(C);

impl<C: Codec> BlockCodec for Block<C> {
    fn id(&self) -> u8 {
        self.0.id().number()
    }

    fn compress(&self, raw: &[u8], out: &mut Vec<u8>) {
        self.0.compress(raw, out);
    }

    fn decompress(
        &self,
        stored: &[u8],
        raw_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        self.0
            .decompress(stored, raw_len, out)
            .map_err(CodecError::new)
    }
}

impl<C: Codec> SegmentCodec for Block<C> {
    fn id(&self) -> u8 {
        self.0.id().number()
    }

    fn compress(&self, raw: &[u8], out: &mut Vec<u8>) {
        self.0.compress(raw, out);
    }

    fn decompress(
        &self,
        stored: &[u8],
        raw_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), wal::CodecError> {
        self.0
            .decompress(stored, raw_len, out)
            .map_err(wal::CodecError::new)
    }
}

/// What sealed segments of the log are rewritten with.
pub(crate) fn wal_codec(compression: WalCompression) -> Arc<dyn SegmentCodec> {
    match compression {
        WalCompression::Lz4 => Arc::new(Block(Lz4)),
        WalCompression::Zstd => Arc::new(Block(Zstd::DEFAULT)),
    }
}

/// Every codec that segments of a log may have been rewritten with.
pub fn wal_codecs() -> wal::Codecs {
    wal::Codecs::new([WalCompression::Lz4, WalCompression::Zstd].map(wal_codec))
}

/// What snapshots are written with.
pub(crate) fn snapshot_codec() -> Arc<dyn BlockCodec> {
    Arc::new(Block(Lz4))
}

/// Every codec that a snapshot may have been written with; plain blocks are known to the reader itself.
pub fn snapshot_codecs() -> [&'static dyn BlockCodec; 3] {
    static LZ4: Block<Lz4> = Block(Lz4);
    static SNAPPY: Block<Snappy> = Block(Snappy);
    static ZSTD: Block<Zstd> = Block(Zstd::DEFAULT);
    [&LZ4, &SNAPPY, &ZSTD]
}
