//! Whatever the bytes are, decoding neither panics nor takes memory for what they only claim; and what was encoded comes back.

use proptest::prelude::*;

use crate::codec::{CodecError, Codecs, SegmentCodec};
use crate::format::{
    Cause, FRAME_HEADER_LEN, FrameHeader, HEADER_LEN, Lsn, Op, PACK_HEAD_LEN, RecordHead,
    SegmentHeader, StoreId, decode_record, encode_head, pack_head,
};
use crate::reader::{check_records, unpack};

const STORE: StoreId = *b"a store of tests";

fn text(max: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 0..max).prop_map(|chars| chars.into_iter().collect())
}

#[derive(Clone, Debug)]
struct Sample {
    version: u64,
    expires_at: Option<u64>,
    delete: bool,
    evicted: bool,
    media_type: Option<String>,
    key: String,
    value: Vec<u8>,
}

fn samples() -> impl Strategy<Value = Sample> {
    (
        any::<u64>(),
        any::<Option<u64>>(),
        any::<bool>(),
        any::<bool>(),
        prop::option::of("[a-z]{1,20}/[a-z]{1,40}"),
        text(60),
        prop::collection::vec(any::<u8>(), 0..300),
    )
        .prop_map(
            |(version, expires_at, delete, evicted, media_type, key, value)| Sample {
                version,
                expires_at,
                delete,
                evicted,
                media_type,
                key,
                value,
            },
        )
}

impl Sample {
    fn head(&self, lsn: u64) -> RecordHead<'_> {
        RecordHead {
            lsn: Lsn::new(lsn),
            version: self.version,
            expires_at: self.expires_at,
            pinned: !self.delete && self.version % 2 == 1,
            value_crc: crc32fast::hash(&self.value),
            op: if self.delete { Op::Delete } else { Op::Put },
            cause: if self.evicted {
                Cause::Evicted
            } else {
                Cause::Client
            },
            media_type: self.media_type.as_deref(),
            key: &self.key,
        }
    }

    fn encode(&self, lsn: u64, out: &mut Vec<u8>) {
        let head = encode_head(&self.head(lsn), self.value.len()).expect("within the limits");
        out.extend_from_slice(&head);
        out.extend_from_slice(self.media_type.as_deref().unwrap_or("").as_bytes());
        out.extend_from_slice(self.key.as_bytes());
        out.extend_from_slice(&self.value);
    }
}

/// Claims whatever it is asked for, and would fill it.
struct Boundless;

impl SegmentCodec for Boundless {
    fn id(&self) -> u8 {
        9
    }

    fn compress(&self, raw: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(raw);
    }

    fn decompress(&self, _: &[u8], raw_len: usize, _: &mut Vec<u8>) -> Result<(), CodecError> {
        assert!(raw_len <= 1 << 30 | 1 << 17, "asked for {raw_len} bytes");
        Err(CodecError::new("never"))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_record_comes_back(sample in samples(), lsn: u64, rest in prop::collection::vec(any::<u8>(), 0..20)) {
        let mut bytes = Vec::new();
        sample.encode(lsn, &mut bytes);
        let len = bytes.len();
        bytes.extend_from_slice(&rest);
        let (record, used) = decode_record(&bytes).expect("sound");
        prop_assert_eq!(used, len);
        prop_assert_eq!(record.encoded_len(), len as u64);
        prop_assert_eq!(record.value, &sample.value[..]);
        let expected = RecordHead {
            expires_at: sample.expires_at.map(|at| at.max(1)),
            ..sample.head(lsn)
        };
        prop_assert_eq!(record.head(), expected);
    }

    #[test]
    fn a_record_with_any_changed_bit_or_cut_short_is_refused(sample in samples(), place: prop::sample::Index, bit in 0..8u8) {
        let mut bytes = Vec::new();
        sample.encode(7, &mut bytes);
        let cut = place.index(bytes.len());
        prop_assert!(decode_record(&bytes[..cut]).is_err());
        bytes[cut] ^= 1 << bit;
        prop_assert!(decode_record(&bytes).is_err(), "byte {} bit {}", cut, bit);
    }

    #[test]
    fn any_bytes_at_all_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), magic: bool) {
        let _ = decode_record(&bytes);
        let mut page = bytes.clone();
        if magic && page.len() > 12 {
            page[..8].copy_from_slice(b"IFKV-WAL");
        }
        let _ = SegmentHeader::decode(&page, None);
        page.resize(HEADER_LEN, 0);
        prop_assert!(SegmentHeader::decode(&page, Some(1)).is_err());
        if let Some(header) = bytes.first_chunk::<FRAME_HEADER_LEN>() {
            prop_assert!(FrameHeader::decode(header, &STORE, 1).is_err());
        }
    }

    #[test]
    fn a_frame_header_comes_back(segment: u64, first: u64, durable: u64, at: u64, count in 0..1000u32, extra in 0..100_000u32, codec in 0..3u8) {
        let (len, codec) = match (count, codec) {
            (0, _) => (0, 0),
            (_, 0) => (count * 44 + extra, 0),
            _ => (PACK_HEAD_LEN as u32 + 1 + extra, codec),
        };
        let header = FrameHeader {
            segment,
            first_lsn: Lsn::new(first),
            durable_lsn: Lsn::new(durable),
            written_at_ms: at,
            count,
            len,
            codec,
        };
        let bytes = header.encode(&STORE);
        prop_assert_eq!(FrameHeader::decode(&bytes, &STORE, segment), Ok(header));
        prop_assert!(FrameHeader::decode(&bytes, &STORE, segment ^ 1).is_err());
        prop_assert!(FrameHeader::decode(&bytes, b"another store...", segment).is_err());
    }

    #[test]
    fn a_frame_header_with_any_changed_bit_is_refused(place in 0..FRAME_HEADER_LEN, bit in 0..8u8) {
        let header = FrameHeader {
            segment: 3,
            first_lsn: Lsn::new(9),
            durable_lsn: Lsn::new(8),
            written_at_ms: 1,
            count: 2,
            len: 100,
            codec: 0,
        };
        let mut bytes = header.encode(&STORE);
        bytes[place] ^= 1 << bit;
        prop_assert!(FrameHeader::decode(&bytes, &STORE, 3).is_err());
    }

    #[test]
    fn a_segment_header_comes_back(number: u64, follows in 0..u64::MAX / 2, gap in 0..1000u64, jump in 1..1000u64, at: u64, codec: u8) {
        let header = SegmentHeader {
            store_id: STORE,
            number,
            first_lsn: Lsn::new(follows + gap + jump),
            follows: Lsn::new(follows),
            floor: Lsn::new(follows + gap),
            created_at_ms: at,
            codec,
        };
        let page = header.encode();
        prop_assert_eq!(page.len(), HEADER_LEN);
        prop_assert_eq!(SegmentHeader::decode(&page, Some(number)), Ok(header));
        prop_assert!(SegmentHeader::decode(&page, Some(number.wrapping_add(1))).is_err());
        prop_assert!(SegmentHeader::decode(&page[..HEADER_LEN - 1], None).is_err());
    }

    #[test]
    fn a_segment_header_with_any_changed_bit_is_refused(place in 0..HEADER_LEN, bit in 0..8u8) {
        let header = SegmentHeader {
            store_id: STORE,
            number: 1,
            first_lsn: Lsn::new(1),
            follows: Lsn::ZERO,
            floor: Lsn::ZERO,
            created_at_ms: 5,
            codec: 0,
        };
        let mut page = header.encode();
        page[place] ^= 1 << bit;
        prop_assert!(SegmentHeader::decode(&page, None).is_err());
    }

    /// The records of a frame are in order, as many as its header says, and nothing else.
    #[test]
    fn the_records_of_a_frame_are_counted_and_numbered(all in prop::collection::vec(samples(), 1..6), off in 0..3u64) {
        let mut bytes = Vec::new();
        for (lsn, sample) in (10..).zip(&all) {
            sample.encode(lsn, &mut bytes);
        }
        let header = FrameHeader {
            segment: 1,
            first_lsn: Lsn::new(9 + off),
            durable_lsn: Lsn::ZERO,
            written_at_ms: 0,
            count: all.len() as u32,
            len: bytes.len() as u32,
            codec: 0,
        };
        prop_assert_eq!(check_records(&header, &bytes).is_ok(), off == 1);
        let more = FrameHeader { count: header.count + 1, ..header };
        prop_assert!(check_records(&more, &bytes).is_err());
        let fewer = FrameHeader { count: header.count - 1, ..header };
        prop_assert!(check_records(&fewer, &bytes).is_err());
    }

    /// A compressed frame that claims more than its records can have is refused before a codec is asked.
    #[test]
    fn a_claimed_length_is_believed_within_the_limits_only(raw_len: u32, count in 1..5u32, stored in prop::collection::vec(any::<u8>(), 1..50)) {
        let mut payload = pack_head(raw_len, &stored).to_vec();
        payload.extend_from_slice(&stored);
        let header = FrameHeader {
            segment: 1,
            first_lsn: Lsn::new(1),
            durable_lsn: Lsn::ZERO,
            written_at_ms: 0,
            count,
            len: payload.len() as u32,
            codec: 9,
        };
        let codecs = Codecs::new([std::sync::Arc::new(Boundless) as std::sync::Arc<dyn SegmentCodec>]);
        let mut buffer = Vec::new();
        prop_assert!(unpack(&header, &payload, &codecs, &mut buffer).is_err());
        prop_assert_eq!(buffer.capacity(), 0);
        let last = payload.len() - 1;
        payload[last] ^= 1;
        let fault = unpack(&header, &payload, &codecs, &mut buffer).expect_err("changed");
        prop_assert!(fault.to_string().starts_with("checksum of compressed records"), "{}", fault);
    }
}
