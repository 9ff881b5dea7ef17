//! Values that are stored coded: taken along under a partition's lock, decoded outside it.

use super::read::Document;
use bytes::Bytes;
use inflightkv_compression::{CodecId, DecodeError, Dictionary, DictionarySet, codec};
use inflightkv_core::{Coding, Entry};
use std::sync::Arc;

/// A stored value with everything that reading it takes, also after its partition has moved on.
#[derive(Clone, Debug)]
pub(crate) struct StoredValue {
    bytes: Bytes,
    coded: Option<Coded>,
}

#[derive(Clone, Debug)]
struct Coded {
    codec: CodecId,
    raw_len: usize,
    dictionary: Option<Arc<Dictionary>>,
}

impl StoredValue {
    /// Under the partition's lock: a large value is shared, a small one copied. The partition's own dictionaries are asked,
    /// so that the one that the value needs cannot be retired in between.
    pub(crate) fn of(entry: &Entry, dictionaries: &DictionarySet) -> Self {
        Self {
            bytes: match entry.shared() {
                Some(value) => value.clone(),
                None => Bytes::copy_from_slice(entry.stored()),
            },
            coded: entry.coding().map(|coding| Coded::of(coding, dictionaries)),
        }
    }

    /// The value itself.
    ///
    /// # Errors
    /// The bytes are not those that were coded: memory was overwritten.
    pub(crate) fn decode(&self) -> Result<Bytes, DecodeError> {
        let Some(coded) = &self.coded else {
            return Ok(self.bytes.clone());
        };
        let mut raw = Vec::with_capacity(coded.raw_len);
        match &coded.dictionary {
            Some(dictionary) => dictionary.decompress(&self.bytes, coded.raw_len, &mut raw)?,
            None => codec(coded.codec).decompress(&self.bytes, coded.raw_len, &mut raw)?,
        }
        Ok(Bytes::from(raw))
    }

    /// The bytes as they are stored when they are one frame of Zstandard that needs no dictionary.
    pub(crate) fn zstd_frame(&self) -> Option<&Bytes> {
        let coded = self.coded.as_ref()?;
        (coded.codec == CodecId::Zstd && coded.dictionary.is_none()).then_some(&self.bytes)
    }
}

impl Coded {
    fn of(coding: Coding, dictionaries: &DictionarySet) -> Self {
        Self {
            codec: CodecId::try_from(coding.codec).expect("entries are coded by known codecs"),
            raw_len: coding.raw_len as usize,
            dictionary: (coding.dictionary != 0).then(|| {
                let dictionary = dictionaries.get(coding.dictionary);
                Arc::clone(dictionary.expect("a dictionary stays while an entry needs it"))
            }),
        }
    }
}

/// A document whose value is yet to be decoded.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Without its value.
    document: Document,
    value: StoredValue,
}

impl Seen {
    /// Under the partition's lock.
    pub(crate) fn of(entry: &Entry, dictionaries: &DictionarySet) -> Self {
        Self {
            document: Document {
                value: Bytes::new(),
                zstd: None,
                undecodable: false,
                media_type: entry.media_type().map(str::to_owned),
                version: entry.version(),
                sequence: entry.sequence(),
                expires_at: entry.expires_at(),
                crc: entry.crc(),
            },
            value: StoredValue::of(entry, dictionaries),
        }
    }

    /// The document whole. One that does not decode is marked so and has no value.
    pub(crate) fn decode(self) -> Document {
        let Self {
            mut document,
            value,
        } = self;
        match value.decode() {
            Ok(raw) => document.value = raw,
            Err(_) => document.undecodable = true,
        }
        document
    }

    /// The same, and the frame of Zstandard beside it if it is stored as one that anybody can read.
    pub(crate) fn decode_with_frame(self) -> Document {
        let zstd = self.value.zstd_frame().cloned();
        Document {
            zstd,
            ..self.decode()
        }
    }
}
