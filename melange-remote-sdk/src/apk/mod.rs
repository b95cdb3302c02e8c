//! APK packages and repositories.
//!
//! ```text
//! package  = [signature tar.gz] ‖ control tar.gz ‖ data tar.gz       each a gzip member (data may be several)
//! index    = [signature tar.gz] ‖ (APKINDEX, DESCRIPTION) tar.gz
//! C:       = "Q1" + base64(SHA-1 of the control member)
//! datahash = hex(SHA-256 of the data member)
//! ```
//!
//! Versions and dependencies are pure, and archives are read and written without further libraries; what reads packages is
//! behind the feature `apk`.

pub mod apko_version;
pub mod dependency;
pub mod hashing;
pub mod tar_reader;
pub mod tar_writer;
pub mod version;

#[cfg(feature = "apk")]
mod block_gzip;
#[cfg(feature = "apk")]
pub mod checksum;
#[cfg(feature = "apk")]
pub mod gzip;
#[cfg(feature = "apk")]
pub mod index;
#[cfg(feature = "apk")]
pub(crate) mod index_form;
#[cfg(feature = "apk")]
pub mod pkginfo;
#[cfg(feature = "apk")]
pub mod reader;
#[cfg(feature = "apk")]
pub mod sign;
#[cfg(feature = "apk")]
pub mod signature;
#[cfg(feature = "apk")]
pub mod tree;
#[cfg(feature = "apk")]
pub mod writer;
