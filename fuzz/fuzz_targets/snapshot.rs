//! A manifest, a part or a backup: nothing panics, and no more is allocated than the bytes can fill.
#![no_main]

use inflightkv_fuzz::{OneFile, mend_backup, mend_manifest, mend_part, snapshot_codecs};
use inflightkv_snapshot::{EntryRef, Wanted, chain, find, read_backup, read_file};
use libfuzzer_sys::fuzz_target;
use std::ops::ControlFlow;

fn sound(entry: EntryRef<'_>) -> ControlFlow<()> {
    assert_eq!(crc32fast::hash(entry.value), entry.value_crc);
    ControlFlow::Continue(())
}

fuzz_target!(|input: &[u8]| {
    let Some((how, bytes)) = input.split_first() else {
        return;
    };
    let mut bytes = bytes.to_vec();
    let mended = how & 1 == 1;
    let codecs = snapshot_codecs();
    match how >> 1 & 3 {
        0 => {
            if mended {
                mend_manifest(&mut bytes);
            }
            let name = "00000000000000000001.manifest";
            let folder = OneFile::new(name, &bytes);
            let _ = read_file(&folder, name, &codecs, sound);
            let _ = chain::newest(&folder, None);
        }
        1 => {
            if mended {
                mend_part(&mut bytes);
            }
            let name = "00000000000000000001-0000.part";
            let folder = OneFile::new(name, &bytes);
            let whole = read_file(&folder, name, &codecs, sound);
            let found = find(&folder, name, &codecs, Wanted::Prefix(""), sound);
            assert!(whole.is_err() || found.is_ok(), "{found:?}");
        }
        _ => {
            if mended {
                mend_backup(&mut bytes);
            }
            let name = "a.backup";
            let whole = read_backup(name, &bytes[..], &codecs, sound);
            let folder = OneFile::new(name, &bytes);
            let found = find(&folder, name, &codecs, Wanted::Prefix(""), sound);
            assert!(whole.is_err() || found.is_ok(), "{found:?}");
        }
    }
});
