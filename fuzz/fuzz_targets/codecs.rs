//! Compressed bytes, dictionaries, packed blocks and coded keys: nothing panics, a length that the bytes cannot fill is
//! refused before memory is spent, and what is compressed comes back.
#![no_main]

use inflightkv_compression::batch::{unpack, unpack_one};
use inflightkv_compression::keys::KeyDictionary;
use inflightkv_compression::{CodecId, Dictionary, codec};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((head, bytes)) = input.split_first_chunk::<4>() else {
        return;
    };
    let [how, raw_len @ ..] = *head;
    let raw_len = usize::from(raw_len[0]) << (raw_len[1] % 24) | usize::from(raw_len[2]);
    let codec = codec(CodecId::ALL[usize::from(how & 3) % CodecId::ALL.len()]);
    match how >> 2 & 3 {
        0 => {
            let mut out = b"before".to_vec();
            match codec.decompress(bytes, raw_len, &mut out) {
                Ok(()) => assert_eq!(out.len(), 6 + raw_len),
                Err(_) => assert_eq!(out, b"before"),
            }
            let (mut stored, mut back) = (Vec::new(), Vec::new());
            codec.compress(bytes, &mut stored);
            codec
                .decompress(&stored, bytes.len(), &mut back)
                .expect("it was made by the codec");
            assert_eq!(back, bytes);
        }
        1 => {
            let _ = unpack(bytes, raw_len, codec);
            let _ = unpack_one(bytes, raw_len, 3, codec, &mut Vec::new());
        }
        2 => {
            let middle = bytes.len() / 2;
            let (dictionary, stored) = bytes.split_at(middle);
            if let Ok(dictionary) = Dictionary::new(1, dictionary) {
                let _ = dictionary.decompress(stored, raw_len, &mut Vec::new());
                let (mut coded, mut back) = (Vec::new(), Vec::new());
                dictionary.compress(stored, &mut coded);
                dictionary
                    .decompress(&coded, stored.len(), &mut back)
                    .expect("it was made with the dictionary");
                assert_eq!(back, stored);
            }
        }
        _ => {
            let text = String::from_utf8_lossy(bytes);
            let prefixes: Vec<&str> = text.split('\n').take(8).collect();
            if let Ok(keys) = KeyDictionary::new(&prefixes) {
                let _ = keys.decode(bytes, &mut String::new());
                let (mut coded, mut back) = (Vec::new(), String::new());
                keys.encode(&text, &mut coded);
                keys.decode(&coded, &mut back).expect("it was coded so");
                assert_eq!(back, text);
            }
        }
    }
});
