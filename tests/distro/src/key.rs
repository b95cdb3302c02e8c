//! The repository's key pair: made at first use, kept beside the repository, never part of the sources.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The key's name, as signatures and `/etc/apk/keys` spell it.
pub const KEY_NAME: &str = "test-distro.rsa.pub";
const PRIVATE_NAME: &str = "test-distro.rsa";

/// A key pair that signs a repository.
pub struct SigningKey {
    pair: KeyPair,
    public_pem: String,
}

impl SigningKey {
    /// Reads the pair from a directory, or makes one there.
    pub fn load_or_generate(directory: &Path) -> Result<Self> {
        let path = directory.join(PRIVATE_NAME);
        if !path.exists() {
            fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
            generate(&path)?;
        }
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let key = Self::from_pem(&text).with_context(|| path.display().to_string())?;
        let public = directory.join(KEY_NAME);
        if fs::read_to_string(&public).ok().as_deref() != Some(&key.public_pem) {
            fs::write(&public, &key.public_pem).with_context(|| public.display().to_string())?;
        }
        Ok(key)
    }

    /// The public key as PEM text.
    pub fn public_pem(&self) -> &str {
        &self.public_pem
    }

    /// An RSA signature (PKCS#1 v1.5) over the SHA-256 of some bytes.
    pub fn sign(&self, data: &[u8]) -> Result<Vec<u8>> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), data, &mut signature)
            .map_err(|_| anyhow!("signing failed"))?;
        Ok(signature)
    }

    fn from_pem(text: &str) -> Result<Self> {
        let der = pem_decode("PRIVATE KEY", text)?;
        let pair = KeyPair::from_pkcs8(&der).map_err(|why| anyhow!("no RSA key in PKCS#8: {why}"))?;
        let public: PublicKeyX509Der<'_> =
            pair.public_key().as_der().map_err(|_| anyhow!("the public key has no encoding"))?;
        let public_pem = pem_encode("PUBLIC KEY", public.as_ref());
        Ok(Self { pair, public_pem })
    }
}

/// Whether a signature fits the data and a public key in PEM.
pub fn verify(public_pem: &str, data: &[u8], signature: &[u8]) -> Result<bool> {
    let der = pem_decode("PUBLIC KEY", public_pem)?;
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der);
    Ok(key.verify(data, signature).is_ok())
}

fn generate(path: &Path) -> Result<()> {
    let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| anyhow!("cannot make an RSA key"))?;
    let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| anyhow!("the private key has no encoding"))?;
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .with_context(|| temporary.display().to_string())?;
    file.write_all(pem_encode("PRIVATE KEY", der.as_ref()).as_bytes())?;
    fs::rename(&temporary, path).with_context(|| path.display().to_string())
}

fn pem_encode(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    pem + &format!("-----END {label}-----\n")
}

fn pem_decode(label: &str, pem: &str) -> Result<Vec<u8>> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let body = pem.split_once(&begin).and_then(|(_, tail)| tail.split_once(&end)).map(|(body, _)| body);
    let body: String = body.with_context(|| format!("no PEM block {label}"))?.split_whitespace().collect();
    ensure!(!body.is_empty(), "the PEM block {label} is empty");
    STANDARD.decode(body).context("PEM block")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_signs() {
        let directory = tempfile::tempdir().unwrap();
        let key = SigningKey::load_or_generate(directory.path()).unwrap();
        let again = SigningKey::load_or_generate(directory.path()).unwrap();
        assert_eq!(key.public_pem(), again.public_pem());
        let mode = fs::metadata(directory.path().join(PRIVATE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let signature = key.sign(b"data").unwrap();
        assert_eq!(signature, again.sign(b"data").unwrap());
        assert!(verify(key.public_pem(), b"data", &signature).unwrap());
        assert!(!verify(key.public_pem(), b"date", &signature).unwrap());
        let other = SigningKey::load_or_generate(&directory.path().join("other")).unwrap();
        assert!(!verify(other.public_pem(), b"data", &signature).unwrap());
    }
}
