//! What the files that a guest left need and provide, and the SPDX document that tells of them. The tree itself is
//! [`crate::apk::tree`], which packages are written from.

mod license;
mod purl;
pub mod sbom;
pub mod scan;
