//! The text files of the workspace, read once.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Path from the root of the workspace, to text.
pub(crate) type Files = BTreeMap<PathBuf, String>;

/// Extensions of what people write.
const TEXT: [&str; 9] = ["rs", "toml", "md", "sh", "py", "yml", "yaml", "txt", "json"];
/// Folders without a dot in front that hold nothing written by people.
const SKIPPED: [&str; 2] = ["target", "node_modules"];
/// Folders with a dot in front that do.
const HIDDEN: [&str; 3] = [".ci", ".cargo", ".github"];
/// In a worktree it is a file that says where the repository is.
const GIT: &str = ".git";
/// Marks a folder as a cache, wherever it is (bford.info/cachedir).
const CACHE_TAG: &str = "CACHEDIR.TAG";

pub(crate) fn read(root: &Path) -> io::Result<Files> {
    let mut files = Files::new();
    read_folder(root, Path::new(""), &mut files)?;
    Ok(files)
}

fn read_folder(root: &Path, folder: &Path, files: &mut Files) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name();
        let (path, name) = (folder.join(&name), name.to_string_lossy());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            let hidden = name.starts_with('.') && !HIDDEN.contains(&&*name);
            if !hidden && !SKIPPED.contains(&&*name) && !entry.path().join(CACHE_TAG).exists() {
                read_folder(root, &path, files)?;
            }
        } else if kind.is_file() && name != GIT && is_text(&path) {
            // What is not UTF-8 is data, whatever its name.
            if let Ok(text) = String::from_utf8(fs::read(entry.path())?) {
                files.insert(path, text);
            }
        }
    }
    Ok(())
}

fn is_text(path: &Path) -> bool {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some(extension) => TEXT.contains(&extension),
        // Scripts and licences have none.
        None => true,
    }
}
