//! The workspace of a guest: files that compilers look for, the files beside the definition, the output folder.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use crate::apk::checksum::HashingWriter;
use crate::apk::tar_writer::{EntryType, Header, TarWriter};
use crate::arch::Arch;
use crate::builder::SourceRules;
use crate::error::{Error, Result};
use crate::guest::{Blob, GuestUser};
use crate::melange::plan::Plan;
use crate::sources::{self, SourceFile};

/// The folder of the workspace that the packages' files go to.
const OUTPUT: &str = "melange-out";

/// Writes the workspace as two tars into `folder`: first what all builds of a user have, then what this one has, with
/// the output folder. The files beside the definition come from a folder, without what the rules leave out.
///
/// # Errors
/// The disk's, and those of [`sources::list`].
pub fn write(
    folder: &Path,
    plan: &Plan,
    namespace: &str,
    (source_dir, rules): (Option<&Path>, &SourceRules),
    user: GuestUser,
) -> Result<Vec<Blob>> {
    let common = write_tar(&folder.join("workspace-common.tar"), &common_files(), user, false)?;
    let mut files = package_files(plan, namespace);
    if let Some(folder) = source_dir {
        for file in sources::list_by(folder, rules)?.files {
            if file.path == OUTPUT {
                let message = format!("{} is where the packages' files go", folder.join(OUTPUT).display());
                return Err(Error::invalid(message).hint("give the source file another name"));
            }
            files.insert(file.path.clone(), Content::Beside { folder, file });
        }
    }
    Ok(vec![common, write_tar(&folder.join("workspace.tar"), &files, user, true)?])
}

fn write_tar(path: &Path, files: &Files<'_>, user: GuestUser, with_output: bool) -> Result<Blob> {
    let failed = |e: io::Error| Error::io("write", path, e);
    let file = std::fs::File::create(path).map_err(failed)?;
    let mut tar = TarWriter::new(HashingWriter::new(io::BufWriter::new(file)));
    let mut made = std::collections::BTreeSet::new();
    for (name, content) in files {
        let parts: Vec<&str> = name.split('/').collect();
        for depth in 1..parts.len() {
            let folder = parts[..depth].join("/");
            if made.insert(folder.clone()) {
                tar.append(&owned(user, &folder, EntryType::Directory, 0o755), &mut io::empty())
                    .map_err(failed)?;
            }
        }
        match content {
            Content::Made(text) => {
                let size = text.len() as u64;
                let header = Header { size, ..owned(user, name, EntryType::File, 0o644) };
                tar.append(&header, &mut text.as_bytes()).map_err(failed)?;
            }
            Content::Beside { folder, file } => {
                let size = file.size_bytes;
                let header = Header { size, ..owned(user, name, EntryType::File, file.mode()) };
                // A file that grew is cut and one that shrank is an error.
                tar.append(&header, &mut file.open(folder)?).map_err(failed)?;
            }
        }
    }
    if with_output {
        tar.append(&owned(user, OUTPUT, EntryType::Directory, 0o755), &mut io::empty()).map_err(failed)?;
    }
    let (mut sink, sha256, size_bytes) = tar.finish().map_err(failed)?.finish();
    sink.flush().map_err(failed)?;
    Ok(Blob { path: path.to_owned(), sha256, size_bytes })
}

fn owned(user: GuestUser, name: &str, kind: EntryType, mode: u32) -> Header<'_> {
    Header { uid: user.uid, gid: user.gid, ..Header::new(name, kind, mode) }
}

type Files<'a> = BTreeMap<String, Content<'a>>;

/// What a file of the workspace holds.
enum Content<'a> {
    /// A text of ours.
    Made(String),
    /// A file beside the definition, which is read when it is written.
    Beside { folder: &'a Path, file: SourceFile },
}

/// The package note, and where compilers and linkers look for it.
fn package_files(plan: &Plan, namespace: &str) -> Files<'static> {
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
    let mut put = |name: String, text: String| files.insert(name, Content::Made(text));
    put(".melange.gcc.spec".to_owned(), format!("*link:\n+ %{{!r:--package-metadata={note}}}\n"));
    put(".melange.clang.cfg".to_owned(), format!("-Xlinker --package-metadata='{note}'\n"));
    put(".melange.fdo.h".to_owned(), note_header(&note));
    files
}

/// The files through which Wolfi's compiler wrappers find the note: more than a hundred, the same for every package.
fn common_files() -> Files<'static> {
    let mut files = Files::new();
    for version in 15..=42 {
        for arch in [Arch::Aarch64, Arch::X86_64] {
            for program in ["clang", "clang++"] {
                let name = format!("{arch}-unknown-linux-gnu-{program}.cfg");
                let text = format!("@../../.melange.clang.cfg\n@/etc/clang-{version}/{name}\n");
                files.insert(format!(".config/clang-{version}/{name}"), Content::Made(text));
            }
        }
    }
    files
}

/// A C header that defines the note as an ELF note of owner `FDO`, which the linker keeps although nothing refers to it.
/// Where objects are not ELF it defines nothing.
fn note_header(note: &str) -> String {
    let literal = note.replace('\\', "\\\\").replace('"', "\\\"");
    format!(
        "#ifndef MELANGE_PACKAGE_NOTE_H\n#define MELANGE_PACKAGE_NOTE_H\n#if defined(__ELF__)\n\
         #define MELANGE_PACKAGE_NOTE_JSON \"{literal}\"\n\
         struct melange_package_note_type {{\n  unsigned int namesz, descsz, type;\n  char name[4];\n  \
         char desc[sizeof(MELANGE_PACKAGE_NOTE_JSON)];\n}};\n\
         static const struct melange_package_note_type melange_package_note\n\
         __attribute__((used, retain, section(\".note.package\"), aligned(4))) = {{\n  \
         sizeof(\"FDO\"), sizeof(MELANGE_PACKAGE_NOTE_JSON), 0xcafe1a7e, \"FDO\", MELANGE_PACKAGE_NOTE_JSON\n}};\n\
         #endif\n#endif\n"
    )
}
