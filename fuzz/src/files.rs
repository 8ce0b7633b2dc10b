//! Corpus and regressions on disk: `corpus/<target>/<name>` and `regressions/<target>/<name>`.

use std::io;
use std::path::{Path, PathBuf};

use crate::targets::Target;

/// Where they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folder {
    /// Written by [`crate::seeds`].
    Corpus,
    /// Inputs that once broke a promise; each stays for ever.
    Regressions,
}

/// The folder of a target.
pub fn folder(folder: Folder, target: &Target) -> PathBuf {
    let name = match folder {
        Folder::Corpus => "corpus",
        Folder::Regressions => "regressions",
    };
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name).join(target.name)
}

/// Names and contents, by name. A folder that does not exist is empty.
pub fn read(kind: Folder, target: &Target) -> io::Result<Vec<(String, Vec<u8>)>> {
    let entries = match std::fs::read_dir(folder(kind, target)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        files.push((entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?));
    }
    files.sort();
    Ok(files)
}

/// Writes one file.
pub fn write(kind: Folder, target: &Target, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    let folder = folder(kind, target);
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(name);
    std::fs::write(&path, bytes)?;
    Ok(path)
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
