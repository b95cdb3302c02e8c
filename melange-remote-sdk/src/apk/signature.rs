//! Signatures: RSA PKCS#1 v1.5 in `.SIGN.RSA256.<key>.pub` (SHA-256) and, for reading, `.SIGN.RSA.` (SHA-1).

use std::collections::BTreeMap;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RSA_PKCS1_SHA256, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::{PemObject, SectionKind};

use super::gzip::{self, MemberKind};
use super::tar_reader::TarReader;
use super::tar_writer::{EntryType, Header, TarWriter};
use crate::error::{Error, ErrorKind, Result};

/// What a signature stands before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// A package: its signature has the time of its build, in seconds since 1970, and names of owners.
    Package {
        /// That time.
        mtime: u64,
    },
    /// An index: its signature has neither.
    Index,
}

/// A private key with the name under which its signatures are found.
pub struct SigningKey {
    name: String,
    pair: KeyPair,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Reads a PEM key (`RSA PRIVATE KEY` or PKCS#8). `name` is the key file's base name, such as `local.rsa`;
    /// signatures carry `<name>.pub`.
    ///
    /// # Errors
    /// `InvalidRequest` for anything but an RSA private key, or a name that is no plain file name.
    pub fn from_pem(name: &str, pem: &[u8]) -> Result<Self> {
        if !is_key_name(name) {
            return Err(
                Error::invalid(format!("{name:?} cannot name a key")).hint("use letters, digits and `._@-`")
            );
        }
        let broken = || {
            Error::invalid(format!("the key {name} is no RSA private key in PEM form"))
                .hint("make one with `melange keygen`")
        };
        let (kind, der) = <(SectionKind, Vec<u8>)>::from_pem_slice(pem).map_err(|e| broken().source(e))?;
        let pair = match kind {
            SectionKind::RsaPrivateKey => KeyPair::from_der(&der),
            SectionKind::PrivateKey => KeyPair::from_pkcs8(&der),
            _ => return Err(broken()),
        }
        .map_err(|rejected| broken().source(rejected))?;
        Ok(Self { name: name.to_owned(), pair })
    }

    /// The name of the public key file, `<name>.pub`.
    pub fn public_name(&self) -> String {
        format!("{}.pub", self.name)
    }

    /// The public key in PEM form (`PUBLIC KEY`).
    ///
    /// # Errors
    /// `Unexpected` when the key cannot be encoded.
    pub fn public_pem(&self) -> Result<String> {
        let der = self
            .pair
            .public_key()
            .as_der()
            .map_err(|e| Error::unexpected("cannot encode the public key").source(e))?;
        Ok(pem("PUBLIC KEY", der.as_ref()))
    }

    /// The signature of `bytes`.
    ///
    /// # Errors
    /// `Unexpected` when the key cannot sign.
    pub fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), bytes, &mut signature)
            .map_err(|_| Error::unexpected("the key cannot sign").with("key", &self.name))?;
        Ok(signature)
    }

    /// A gzip member with the signature of `bytes`, as what is signed begins.
    ///
    /// # Errors
    /// As [`Self::sign`].
    pub fn signature_member(&self, bytes: &[u8], signed: Signed) -> Result<Vec<u8>> {
        let signature = self.sign(bytes)?;
        let name = format!(".SIGN.RSA256.{}", self.public_name());
        let mut header = Header::new(&name, EntryType::File, 0o644);
        header.size = signature.len() as u64;
        if let Signed::Package { mtime } = signed {
            header.mtime = mtime;
            header.uname = "root";
            header.gname = "root";
        }
        let mut tar = TarWriter::new(Vec::new());
        tar.append(&header, &mut &signature[..])
            .and_then(|()| gzip::member(MemberKind::Plain, &tar.finish_open()))
            .map_err(|e| Error::unexpected("cannot write a signature").source(e))
    }
}

/// A new private key in PEM form, PKCS#1, which melange and apko read; [`SigningKey::from_pem`] reads PKCS#8 too.
///
/// # Errors
/// `InvalidRequest` for sizes other than 2048, 3072, 4096 and 8192 bits.
pub fn generate_key(bits: u32) -> Result<String> {
    let size = match bits {
        2048 => KeySize::Rsa2048,
        3072 => KeySize::Rsa3072,
        4096 => KeySize::Rsa4096,
        8192 => KeySize::Rsa8192,
        _ => {
            return Err(Error::invalid(format!("a key of {bits} bits is not offered"))
                .hint("use 2048, 3072, 4096 or 8192"));
        }
    };
    let pair = KeyPair::generate(size).map_err(|_| Error::unexpected("cannot generate a key"))?;
    let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> =
        pair.as_der().map_err(|e| Error::unexpected("cannot encode the key").source(e))?;
    let broken = |e: pkcs8::Error| Error::unexpected("cannot encode the key").with("cause", e);
    let inner = pkcs8::PrivateKeyInfo::try_from(der.as_ref()).map_err(broken)?;
    Ok(pem("RSA PRIVATE KEY", inner.private_key))
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> =
        (0..body.len()).step_by(64).filter_map(|at| body.get(at..(at + 64).min(body.len()))).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Whether `name` is a plain file name.
pub fn is_key_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@' | b'+'))
}

/// Public keys by file name.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    keys: BTreeMap<String, (Vec<u8>, Vec<u8>)>,
}

impl Keyring {
    /// Adds a public key in PEM form under its file name, such as `wolfi-signing.rsa.pub`.
    ///
    /// # Errors
    /// `InvalidRequest` when it is no public key, or the name is no plain file name.
    pub fn add(&mut self, name: &str, pem: &[u8]) -> Result<()> {
        if !is_key_name(name) {
            return Err(
                Error::invalid(format!("{name:?} cannot name a key")).hint("use letters, digits and `._@-`")
            );
        }
        let (kind, der) = <(SectionKind, Vec<u8>)>::from_pem_slice(pem)
            .map_err(|e| Error::invalid(format!("the key {name} is no PEM file")).source(e))?;
        if kind != SectionKind::PublicKey {
            return Err(Error::invalid(format!("the key {name} is no public key"))
                .hint("a keyring holds `PUBLIC KEY` files, which end in `.rsa.pub`"));
        }
        self.keys.insert(name.to_owned(), (der, pem.to_vec()));
        Ok(())
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Names and PEM texts.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.keys.iter().map(|(name, (_, pem))| (name.as_str(), pem.as_slice()))
    }

    /// Verifies `signed` against the signature section `section` (an unpacked tar).
    ///
    /// Every entry must be named as a signature; those of unknown keys and of algorithms that are not read are
    /// passed over; one at least must hold, and none may fail.
    ///
    /// # Errors
    /// `Untrusted`, saying which names were seen.
    pub fn verify(&self, section: &[u8], signed: &[u8]) -> Result<String> {
        let broken =
            |e: std::io::Error| Error::new(ErrorKind::Untrusted, "the signature section is broken").source(e);
        let mut seen = Vec::new();
        let mut reader = TarReader::new(section);
        while let Some(entry) = reader.next().map_err(broken)? {
            let name = entry.name_lossy();
            let Some((algorithm, key)) = name.strip_prefix(".SIGN.").and_then(|rest| rest.split_once('.'))
            else {
                return Err(Error::new(
                    ErrorKind::Untrusted,
                    format!("{name:?} stands in the signature section"),
                ));
            };
            let known = self.keys.get(key).or_else(|| self.keys.get(&format!("{key}.rsa.pub")));
            let Some((der, _)) = known else {
                seen.push(name);
                continue;
            };
            let signature = reader.read_content(64 << 10).map_err(broken)?;
            let scheme = match algorithm {
                "RSA" => &RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
                "RSA256" => &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
                _ => continue,
            };
            return match UnparsedPublicKey::new(scheme, der).verify(signed, &signature) {
                Ok(()) => Ok(key.to_owned()),
                Err(_) => {
                    Err(Error::new(ErrorKind::Untrusted, format!("the signature {name} does not hold")).hint(
                        "the file was changed after it was signed, or another key of that name signed it",
                    ))
                }
            };
        }
        let names: Vec<&str> = self.keys.keys().map(String::as_str).collect();
        Err(Error::new(ErrorKind::Untrusted, "no known key signed it")
            .with("signed by", seen.join(", "))
            .hint(format!(
                "keys in the keyring: {}",
                if names.is_empty() { "none".to_owned() } else { names.join(", ") }
            )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_pkcs1_and_both_forms_are_read() {
        let text = generate_key(2048).unwrap();
        assert!(text.starts_with("-----BEGIN RSA PRIVATE KEY-----\n"), "{:.40}", text);
        let key = SigningKey::from_pem("k.rsa", text.as_bytes()).unwrap();
        let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = key.pair.as_der().unwrap();
        let pkcs8 = pem("PRIVATE KEY", der.as_ref());
        let same = SigningKey::from_pem("k.rsa", pkcs8.as_bytes()).unwrap();
        assert_eq!(same.public_pem().unwrap(), key.public_pem().unwrap());
        assert_eq!(same.sign(b"x").unwrap(), key.sign(b"x").unwrap());
    }

    #[test]
    fn signs_and_verifies_and_refuses() {
        let key = SigningKey::from_pem("test.rsa", generate_key(2048).unwrap().as_bytes()).unwrap();
        let member = key.signature_member(b"content", Signed::Package { mtime: 0 }).unwrap();
        let section = gzip::Counting::new(&member[..]).read_member(1 << 20).unwrap();
        let mut keyring = Keyring::default();
        assert_eq!(keyring.verify(&section, b"content").unwrap_err().kind(), ErrorKind::Untrusted);
        keyring.add("test.rsa.pub", key.public_pem().unwrap().as_bytes()).unwrap();
        assert_eq!(keyring.verify(&section, b"content").unwrap(), "test.rsa.pub");
        assert!(keyring.verify(&section, b"Content").is_err());
        assert!(keyring.add("../x.rsa.pub", key.public_pem().unwrap().as_bytes()).is_err());
        assert!(keyring.add("x.rsa.pub", b"nonsense").is_err());
        assert!(generate_key(1024).is_err());
    }
}
