//! Files that the caller named, read with a bound; what cannot be read is told with its reason and what to do.

use std::fs::File;
use std::io::{ErrorKind as IoErrorKind, Read};
use std::path::Path;

use melange_remote_sdk::error::{Error, ErrorKind, Result};
use melange_remote_sdk::text::diagnostics::{Diagnostic, Diagnostics, Position, Source};

/// Bytes of a key's file; those of 8192 bits have 6.4 KiB.
pub(crate) const KEY_BYTES_MAX: u64 = 1 << 20;
/// Bytes of an index's file; that of a whole distribution has less than a tenth.
pub(crate) const INDEX_BYTES_MAX: u64 = 256 << 20;

/// What stands for standard input.
pub(crate) const STDIN: &str = "-";
/// What standard input is called in messages.
pub(crate) const STDIN_NAME: &str = "<stdin>";

/// Whether a path stands for standard input.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == STDIN
}

/// The folder in which a file lies.
pub(crate) fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What a path is called in messages.
pub(crate) fn name(path: &Path) -> String {
    if is_stdin(path) { STDIN_NAME.to_owned() } else { path.display().to_string() }
}

/// The error of a file that cannot be read.
pub(crate) fn unreadable(path: &Path, error: std::io::Error) -> Error {
    failed("read", path, error)
}

/// The error of an operation on a file or folder that the caller named.
pub(crate) fn failed(operation: &str, path: &Path, error: std::io::Error) -> Error {
    let message = format!("cannot {operation} {}", path.display());
    match error.kind() {
        IoErrorKind::NotFound => Error::new(ErrorKind::NotFound, message).source(error),
        IoErrorKind::AlreadyExists => Error::new(ErrorKind::AlreadyExists, message).source(error),
        IoErrorKind::PermissionDenied | IoErrorKind::ReadOnlyFilesystem => {
            Error::new(ErrorKind::PermissionDenied, message)
                .source(error)
                .hint("look at its permissions and at those of the folders above it")
        }
        IoErrorKind::IsADirectory => is_folder(path),
        IoErrorKind::NotADirectory => {
            Error::invalid(message).source(error).hint("a file is where a folder should be")
        }
        IoErrorKind::StorageFull | IoErrorKind::QuotaExceeded => {
            Error::unexpected(message).source(error).hint("make room on its disk")
        }
        _ => Error::unexpected(message).source(error),
    }
}

fn is_folder(path: &Path) -> Error {
    Error::invalid(format!("{} is a folder", path.display())).hint("name a file")
}

/// Opens a file for reading, a folder not.
pub(crate) fn open(path: &Path) -> Result<File> {
    let file = File::open(path).map_err(|e| unreadable(path, e))?;
    let about = file.metadata().map_err(|e| unreadable(path, e))?;
    if about.is_dir() { Err(is_folder(path)) } else { Ok(file) }
}

/// Reads a whole file of at most `most` bytes.
pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(most + 1).read_to_end(&mut bytes).map_err(|e| unreadable(path, e))?;
    if bytes.len() as u64 > most {
        let message = format!("{} has more than {most} bytes", path.display());
        return Err(Error::new(ErrorKind::LimitExceeded, message).hint("is it the right file?"));
    }
    Ok(bytes)
}

/// Reads a definition or what goes with one: at most one byte more than may be in it, which the compiler refuses.
pub(crate) fn read_text(path: &Path, most: u64) -> Result<String> {
    let mut bytes = Vec::new();
    let read = if is_stdin(path) {
        std::io::stdin().lock().take(most + 1).read_to_end(&mut bytes)
    } else {
        open(path)?.take(most + 1).read_to_end(&mut bytes)
    };
    read.map_err(|e| unreadable(Path::new(&name(path)), e))?;
    String::from_utf8(bytes).map_err(|error| not_text(&name(path), &error))
}

/// The mistake of a text that is none, at its place.
fn not_text(name: &str, error: &std::string::FromUtf8Error) -> Error {
    let (right, _) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
    let right = String::from_utf8_lossy(right);
    let count = |number: usize| u32::try_from(number + 1).unwrap_or(u32::MAX);
    let line = count(right.matches('\n').count());
    let column = count(right.rsplit('\n').next().unwrap_or_default().chars().count());
    let source = Source::new(name, String::from_utf8_lossy(error.as_bytes()));
    let found = Diagnostic::new(&source, Position { line, column }, "the file is not UTF-8");
    Diagnostics::from(found.hint("save it as UTF-8")).into_error()
}

/// Refuses several uses of standard input, which can be read once.
pub(crate) fn check_stdin<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<()> {
    if paths.filter(|path| is_stdin(path)).count() > 1 {
        return Err(Error::invalid("standard input is named more than once")
            .hint("it can be read once: name files for the others"));
    }
    Ok(())
}
