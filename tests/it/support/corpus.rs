//! Two thirds of a real distribution: the definitions that stand beside the checkout, unpacked once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::{missing, root};

/// The folder of the definitions; `None`, said aloud, where there are none.
pub(crate) fn corpus() -> Option<&'static Path> {
    static CORPUS: OnceLock<Option<PathBuf>> = OnceLock::new();
    CORPUS.get_or_init(unpacked).as_deref()
}

fn unpacked() -> Option<PathBuf> {
    let archive = root().join("../shared/corpus/wolfi-os.tar.xz");
    let Ok(meta) = std::fs::metadata(&archive) else {
        missing("the definitions of a real distribution (shared/corpus) are not beside this checkout");
        return None;
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("corpus-{}", meta.len()));
    if !folder.exists() {
        let unfinished = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let status = Command::new("tar").arg("-xJf").arg(&archive).arg("-C").arg(unfinished.path()).status();
        assert!(status.unwrap().success(), "tar and xz must be there");
        // Another test process may have been faster; what it made is the same.
        let _ = std::fs::rename(unfinished.path().join("wolfi-os"), &folder);
    }
    assert!(folder.join("pipelines").is_dir());
    Some(folder)
}

/// Its definitions, sorted.
pub(crate) fn definitions(folder: &Path) -> Vec<PathBuf> {
    yaml_files(folder)
}

/// Its own pipelines by their paths.
pub(crate) fn pipelines(folder: &Path) -> std::collections::BTreeMap<String, String> {
    let base = folder.join("pipelines");
    let mut found = std::collections::BTreeMap::new();
    let mut folders = vec![base.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                let name = path.strip_prefix(&base).unwrap().to_str().unwrap().to_owned();
                found.insert(name, std::fs::read_to_string(path).unwrap());
            }
        }
    }
    found
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_definition = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        path.is_file() && name.ends_with(".yaml") && !name.starts_with('.')
    };
    let mut files: Vec<PathBuf> = paths.filter(is_definition).collect();
    files.sort();
    files
}
