//! Reading a trace: a request a line, `key` or `key size`, in order of arrival.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::error::Error;

/// A trace with its keys numbered from 0.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) name: String,
    pub(crate) requests: Vec<u32>,
    /// By key, the largest it was asked for with; 1 where the trace has none.
    pub(crate) sizes: Vec<u32>,
    pub(crate) has_sizes: bool,
}

/// The files of a folder whose names contain `only`, by name.
pub(crate) fn in_folder(folder: &Path, only: &str) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Io {
        doing: format!("reading the folder {}", folder.display()),
        source,
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let named = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.contains(only));
        if named && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Err(Error::Usage(format!(
            "{} has no trace; expected files of one request a line",
            folder.display()
        )));
    }
    Ok(paths)
}

impl Trace {
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Io {
            doing: format!("reading the trace {}", path.display()),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        let compressed = path.extension().is_some_and(|extension| extension == "gz");
        let reader: Box<dyn Read> = if compressed {
            Box::new(MultiGzDecoder::new(file))
        } else {
            Box::new(file)
        };
        let name = path
            .file_stem()
            .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let mut trace = Self {
            name,
            requests: Vec::new(),
            sizes: Vec::new(),
            has_sizes: false,
        };
        let mut numbers: HashMap<String, u32> = HashMap::new();
        for (at, line) in BufReader::new(reader).lines().enumerate() {
            let line = line.map_err(failed)?;
            let mut words = line.split_ascii_whitespace();
            let Some(key) = words.next() else {
                continue;
            };
            let size = match words.next().map(str::parse::<u32>) {
                None => 1,
                Some(Ok(size)) => {
                    trace.has_sizes = true;
                    size.max(1)
                }
                Some(Err(_)) => {
                    return Err(Error::Usage(format!(
                        "{} line {}: found {line:?}; expected a key, or a key and its size in bytes",
                        path.display(),
                        at + 1
                    )));
                }
            };
            let number = match numbers.get(key) {
                Some(number) => *number,
                None => {
                    let number = trace.sizes.len() as u32;
                    numbers.insert(key.to_owned(), number);
                    trace.sizes.push(0);
                    number
                }
            };
            let known = &mut trace.sizes[number as usize];
            *known = (*known).max(size);
            trace.requests.push(number);
        }
        Ok(trace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn keys_are_numbered_and_sizes_kept() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.txt");
        fs::write(&path, "x 10\ny 5\n\nx 12\n").expect("writing a file");
        let packed = folder.path().join("b.gz");
        let file = File::create(&packed).expect("creating a file");
        let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        encoder.write_all(b"7\n8\n7\n").expect("compressing");
        encoder.finish().expect("compressing");
        let paths = in_folder(folder.path(), "").expect("two files");
        assert_eq!(paths, [path, packed]);
        let sized = Trace::read(&paths[0]).expect("a trace");
        assert_eq!(
            (sized.requests, sized.sizes, sized.has_sizes),
            (vec![0, 1, 0], vec![12, 5], true)
        );
        let plain = Trace::read(&paths[1]).expect("a trace");
        assert_eq!(
            (plain.requests, plain.sizes, plain.has_sizes),
            (vec![0, 1, 0], vec![1, 1], false)
        );
        assert!(in_folder(folder.path(), "nothing").is_err());
    }

    #[test]
    fn a_wrong_line_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.txt");
        fs::write(&path, "x 10\ny much\n").expect("writing a file");
        let error = Trace::read(&path).expect_err("no size").to_string();
        assert!(error.contains("line 2"), "{error}");
    }
}
