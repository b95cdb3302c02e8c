//! What the files that a guest left need and provide, what is wrong with them, and the SPDX document that tells of them.
//! The tree itself is `apk::tree`, which packages are written from.

#[cfg(feature = "apk")]
mod license;
pub mod lint;
#[cfg(feature = "apk")]
mod purl;
#[cfg(feature = "apk")]
pub mod sbom;
#[cfg(feature = "apk")]
pub mod scan;
