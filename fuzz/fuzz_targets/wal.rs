//! A segment of the log, or a stream of it: nothing panics, and no more is allocated than the bytes can fill.
#![no_main]

use inflightkv_fuzz::{OneFile, mend_segment, mend_stream, wal_codecs};
use inflightkv_wal::{Op, Storage, StreamReader, tools};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

fuzz_target!(|input: &[u8]| {
    let Some((how, bytes)) = input.split_first() else {
        return;
    };
    let mut bytes = bytes.to_vec();
    let (mended, stream) = (how & 1 == 1, how & 2 == 2);
    if stream {
        if mended {
            mend_stream(&mut bytes);
        }
        let Ok(mut reader) = StreamReader::begin(&bytes[..]) else {
            return;
        };
        while let Ok(Some(frame)) = reader.next_frame() {
            for record in frame.records() {
                assert!(record.op == Op::Put || record.value.is_empty());
            }
        }
    } else {
        if mended {
            mend_segment(&mut bytes);
        }
        let folder = OneFile::new("wal-00000000000000000001.log", &bytes);
        let folder: Arc<dyn Storage> = Arc::new(folder);
        let _ = tools::check(&folder, &wal_codecs());
    }
});
