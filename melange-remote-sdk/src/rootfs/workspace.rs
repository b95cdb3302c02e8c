//! The workspace of a guest: files that compilers look for, the files beside the definition, the output folder.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::apk::checksum::HashingWriter;
use crate::apk::tar_writer::{EntryType, Header, TarWriter};
use crate::arch::Arch;
use crate::error::{Error, ErrorKind, Result};
use crate::guest::{Blob, GuestUser};
use crate::limits;
use crate::melange::plan::Plan;

/// Writes the workspace as two tars into `folder`: first what all builds of a user have, then what this one has, with
/// the output folder.
///
/// # Errors
/// The disk's; `LimitExceeded` for too many source files.
pub fn write(
    folder: &Path,
    plan: &Plan,
    namespace: &str,
    source_dir: Option<&Path>,
    user: GuestUser,
) -> Result<Vec<Blob>> {
    let common = write_tar(&folder.join("workspace-common.tar"), &common_files(), user, false)?;
    let mut files = package_files(plan, namespace);
    // A source folder that does not exist yet is an empty one.
    if let Some(folder) = source_dir.filter(|folder| folder.exists()) {
        let mut found = Vec::new();
        collect(folder, Path::new(""), &mut found)?;
        for (name, mode) in found {
            let bytes =
                std::fs::read(folder.join(&name)).map_err(|e| Error::io("read", &folder.join(&name), e))?;
            let name = name.to_str().ok_or_else(|| {
                Error::new(ErrorKind::Unsupported, format!("{} is not UTF-8", name.display()))
            })?;
            files.insert(name.to_owned(), (mode, bytes));
        }
    }
    Ok(vec![common, write_tar(&folder.join("workspace.tar"), &files, user, true)?])
}

fn write_tar(path: &Path, files: &Files, user: GuestUser, with_output: bool) -> Result<Blob> {
    let failed = |e: io::Error| Error::io("write", path, e);
    let file = std::fs::File::create(path).map_err(failed)?;
    let mut tar = TarWriter::new(HashingWriter::new(io::BufWriter::new(file)));
    let mut made = std::collections::BTreeSet::new();
    for (name, (mode, bytes)) in files {
        let parts: Vec<&str> = name.split('/').collect();
        for depth in 1..parts.len() {
            let folder = parts[..depth].join("/");
            if made.insert(folder.clone()) {
                tar.append(&owned(user, &folder, EntryType::Directory, 0o755), &mut io::empty())
                    .map_err(failed)?;
            }
        }
        let mut header = owned(user, name, EntryType::File, *mode);
        header.size = bytes.len() as u64;
        tar.append(&header, &mut &bytes[..]).map_err(failed)?;
    }
    if with_output {
        tar.append(&owned(user, "melange-out", EntryType::Directory, 0o755), &mut io::empty())
            .map_err(failed)?;
    }
    let (mut sink, sha256, size_bytes) = tar.finish().map_err(failed)?.finish();
    sink.flush().map_err(failed)?;
    Ok(Blob { path: path.to_owned(), sha256, size_bytes })
}

fn owned(user: GuestUser, name: &str, kind: EntryType, mode: u32) -> Header<'_> {
    Header { uid: user.uid, gid: user.gid, ..Header::new(name, kind, mode) }
}

type Files = BTreeMap<String, (u32, Vec<u8>)>;

/// The package note, and where compilers and linkers look for it.
fn package_files(plan: &Plan, namespace: &str) -> Files {
    let package = &plan.package;
    let mut note = format!(
        r#"{{"type":"apk","os":"{namespace}","name":"{}","version":"{}","architecture":"{}""#,
        package.name,
        package.full_version(),
        plan.arch
    );
    if let Some(cpe) = crate::analysis::sbom::cpe(package) {
        note.push_str(&format!(r#","appCpe":"{cpe}""#));
    }
    note.push('}');
    let mut files = Files::new();
    let mut put = |name: String, text: String| files.insert(name, (0o644, text.into_bytes()));
    put(".melange.gcc.spec".to_owned(), format!("*link:\n+ %{{!r:--package-metadata={note}}}\n"));
    put(".melange.clang.cfg".to_owned(), format!("-Xlinker --package-metadata='{note}'\n"));
    put(".melange.fdo.h".to_owned(), note_header(&note));
    files
}

/// The files through which Wolfi's compiler wrappers find the note: more than a hundred, the same for every package.
fn common_files() -> Files {
    let mut files = Files::new();
    for version in 15..=42 {
        for arch in [Arch::Aarch64, Arch::X86_64] {
            for program in ["clang", "clang++"] {
                let name = format!("{arch}-unknown-linux-gnu-{program}.cfg");
                let text = format!("@../../.melange.clang.cfg\n@/etc/clang-{version}/{name}\n");
                files.insert(format!(".config/clang-{version}/{name}"), (0o644, text.into_bytes()));
            }
        }
    }
    files
}

/// A C header that defines the note as an ELF note of owner `FDO`.
fn note_header(note: &str) -> String {
    let literal = note.replace('\\', "\\\\").replace('"', "\\\"");
    format!(
        "#ifndef MELANGE_FDO_H\n#define MELANGE_FDO_H\n\
         struct melange_fdo_note {{\n  unsigned int namesz, descsz, type;\n  char name[4];\n  char desc[{size}];\n}};\n\
         static const struct melange_fdo_note melange_fdo_note\n\
         __attribute__((used, section(\".note.package\"), aligned(4))) = {{\n  4, {size}, 0xcafe1a7e, \"FDO\", \"{literal}\"\n}};\n\
         #endif\n",
        size = (note.len() + 1).div_ceil(4) * 4
    )
}

/// Regular files below `folder` with their permission bits.
fn collect(folder: &Path, below: &Path, found: &mut Vec<(PathBuf, u32)>) -> Result<()> {
    let here = folder.join(below);
    let entries = std::fs::read_dir(&here).map_err(|e| Error::io("list", &here, e))?;
    for entry in entries {
        let entry = entry.map_err(|e| Error::io("list", &here, e))?;
        let name = below.join(entry.file_name());
        let meta = entry.path().symlink_metadata().map_err(|e| Error::io("read", &entry.path(), e))?;
        if meta.is_dir() {
            collect(folder, &name, found)?;
        } else if meta.is_file() {
            found.push((name, meta.permissions().mode() & 0o777));
            if found.len() > limits::SOURCE_FILES_MAX {
                let message =
                    format!("{} holds more than {} files", folder.display(), limits::SOURCE_FILES_MAX);
                return Err(Error::new(ErrorKind::LimitExceeded, message)
                    .hint("keep only what the build needs there"));
            }
        }
    }
    Ok(())
}
