//! A signed APK repository on the spot, out of Debian packages.
//!
//! Tests need a repository in which real software builds, and the machines they run on reach Debian's archive but
//! not Wolfi's. This crate lays Debian's binary packages out the way Wolfi does, gives them Wolfi's names, finds out
//! what they provide and need, and signs the result. It shares no code with the product: its archive writer and its
//! analysis are a second opinion.
//!
//! In the order of the work: [`make`] asks [`apt`] (which takes the archive's address from the machine's own
//! sources, [`host`]) for the packages of a profile in the [`manifest`]; [`plan`] groups them; [`tree`], [`paths`]
//! and [`special`] turn each group's files ([`deb`]) into a package's; [`analyse`] and [`elf`] look through them;
//! [`resolve`] settles dependencies; [`apk`], [`archive`] and [`key`] write. [`verify`] reads everything back.
//! [`sources`] fetches upstream tarballs for the definitions beside this crate.

pub mod analyse;
pub mod apk;
pub mod apt;
pub mod archive;
pub mod cache;
pub mod deb;
pub mod elf;
pub mod host;
pub mod key;
pub mod make;
pub mod manifest;
pub mod parallel;
pub mod paths;
pub mod plan;
pub mod report;
pub mod resolve;
pub mod sources;
pub mod special;
pub mod tree;
pub mod verify;
pub mod version;
