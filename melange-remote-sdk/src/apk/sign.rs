//! Signing what is there already: packages and indexes that were made without a key, or with another one.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::gzip::Counting;
use super::index::{Index, signature_section};
use super::reader::ApkFile;
use super::signature::{Signed, SigningKey};
use super::tar_reader::TarReader;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;

/// Signs the package at `path`; a signature that it has is dropped. The time of the signature is that of its `.PKGINFO`, as
/// melange has it. The file is replaced whole or not at all, and keeps its mode.
///
/// # Errors
/// As [`ApkFile::open`]; `Untrusted` for a package whose control section does not begin with `.PKGINFO`; the disk's; as
/// [`SigningKey::sign`].
pub fn sign_package(path: &Path, key: &SigningKey) -> Result<()> {
    let failed = |e: io::Error| Error::io("write", path, e);
    let apk = ApkFile::open(path)?;
    let (start, end) = apk.control_range;
    let mut source = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let mut control = Vec::new();
    source
        .seek(SeekFrom::Start(start))
        .and_then(|_| (&source).take(end - start).read_to_end(&mut control))
        .map_err(|e| Error::io("read", path, e))?;
    let mtime = pkginfo_time(&control, path)?;
    let signature = key.signature_member(&control, Signed::Package { mtime })?;
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    let folder = folder.map_or_else(|| PathBuf::from("."), Path::to_owned);
    let mut made = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    let written = made
        .write_all(&signature)
        .and_then(|()| source.seek(SeekFrom::Start(start)))
        .and_then(|_| io::copy(&mut source, &mut made))
        .and_then(|_| source.metadata())
        .and_then(|meta| made.as_file().set_permissions(meta.permissions()));
    written.map_err(failed)?;
    made.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

/// The time of `.PKGINFO`, which must be the first file of a control section.
fn pkginfo_time(control: &[u8], path: &Path) -> Result<u64> {
    let refused = |why: &str| {
        Error::new(ErrorKind::Untrusted, format!("{} is not signed: {why}", path.display()))
            .hint("build the package again")
    };
    let section = Counting::new(control).read_member(limits::APK_CONTROL_BYTES_MAX);
    let section = section.map_err(|e| refused("its control section is damaged").source(e))?;
    let first = TarReader::new(&section[..]).next();
    match first.map_err(|e| refused("its control section is no tar").source(e))? {
        Some(entry) if entry.name == b".PKGINFO" => Ok(entry.mtime),
        _ => Err(refused("its control section does not begin with .PKGINFO")),
    }
}

/// The signed form of an index. One that is signed already stays as it is, `None`, unless `again` drops its signature; it is
/// not asked whose that is.
///
/// # Errors
/// As [`Index::read`]; as [`SigningKey::sign`].
pub fn sign_index(bytes: &[u8], key: &SigningKey, again: bool) -> Result<Option<Vec<u8>>> {
    Index::read(bytes, None)?;
    let broken = |e| Error::new(ErrorKind::Untrusted, "the index is damaged").source(e);
    let content = match signature_section(bytes).map_err(broken)? {
        Some(_) if !again => return Ok(None),
        Some((_, content)) => content,
        None => bytes,
    };
    let mut signed = key.signature_member(content, Signed::Index)?;
    signed.extend_from_slice(content);
    Ok(Some(signed))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::apk::index::IndexPackage;
    use crate::apk::pkginfo::PkgInfo;
    use crate::apk::signature::{Keyring, generate_key};
    use crate::apk::tree::Tree;
    use crate::apk::writer::{AccountNames, EmitOptions, write_package};

    fn key(name: &str) -> SigningKey {
        SigningKey::from_pem(name, generate_key(2048).unwrap().as_bytes()).unwrap()
    }

    fn keyring(key: &SigningKey) -> Keyring {
        let mut keyring = Keyring::default();
        keyring.add(&key.public_name(), key.public_pem().unwrap().as_bytes()).unwrap();
        keyring
    }

    #[test]
    fn a_package_is_as_if_it_had_been_made_with_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (key("first.rsa"), key("second.rsa"));
        let mut tree = Tree::default();
        tree.add_file("usr/bin/tool", 0o755, &[7; 100_000]).unwrap();
        let names = AccountNames::default();
        let write = |name: &str, key: Option<&SigningKey>| {
            let mut options = EmitOptions::new(&names);
            (options.epoch_seconds, options.key) = (77, key);
            let mut info = PkgInfo { pkgname: "t".into(), pkgver: "1-r0".into(), ..PkgInfo::default() };
            let path = folder.path().join(name);
            write_package(&path, &tree, &mut info, &BTreeMap::new(), &options).unwrap();
            path
        };
        let wanted = std::fs::read(write("wanted.apk", Some(&second))).unwrap();
        for made_with in [None, Some(&first), Some(&second)] {
            let path = write("t.apk", made_with);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
            sign_package(&path, &second).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), wanted);
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        }
        let path = folder.path().join("t.apk");
        let cut = &wanted[..wanted.len() - 1];
        std::fs::write(&path, cut).unwrap();
        assert_eq!(sign_package(&path, &first).unwrap_err().kind(), ErrorKind::Untrusted);
        assert_eq!(std::fs::read(&path).unwrap(), cut, "what is damaged stays as it is");
    }

    #[test]
    fn an_index_is_signed_once_unless_it_is_asked_for() {
        let (first, second) = (key("first.rsa"), key("second.rsa"));
        let mut index = Index::default();
        let package = IndexPackage { name: "a".into(), version: "1-r0".into(), ..IndexPackage::default() };
        index.put(package);
        let plain = index.write(None).unwrap();
        let signed = sign_index(&plain, &first, false).unwrap().unwrap();
        assert_eq!(signed, index.write(Some(&first)).unwrap());
        assert_eq!(sign_index(&signed, &second, false).unwrap(), None);
        let again = sign_index(&signed, &second, true).unwrap().unwrap();
        assert_eq!(again, index.write(Some(&second)).unwrap());
        assert_eq!(Index::read(&again, Some(&keyring(&second))).unwrap().packages.len(), 1);
        assert!(Index::read(&again, Some(&keyring(&first))).is_err());
        assert!(sign_index(b"no index", &first, true).is_err());
    }
}
