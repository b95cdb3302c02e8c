//! The files beside a definition, such as patches: found in a folder, packed into one archive, unpacked again.
//!
//! ```text
//! folder ─▶ list ─▶ copied into the workspace                          a build on this machine
//!             └───▶ pack ─▶ storage ─▶ unpack ─▶ folder ─▶ list ─▶ …   a build of a farm
//! ```
//!
//! Both ways go through one [`list`], so a job has the same bytes in its workspace, and makes the same packages, wherever
//! it runs. What it lists:
//!
//! - Regular files, with their content and whether they can be executed: modes are 0755 or 0644, so that the umask of a
//!   checkout does not matter. Owners and times do not matter either.
//! - Links inside the folder are left out, as melange does: on another machine they would lead elsewhere. The folder
//!   itself may be a link.
//! - Folders are there for their files; empty ones are left out.
//! - What a pattern of the folder's [`IGNORE_FILE`] fits is left out, as melange does. The file itself is a source file like
//!   any other, so that a list of what was listed is the same.
//! - Anything else (pipes, sockets, devices) is refused with its path.
//!
//! The archive is a plain tar whose bytes follow from what is listed, so its SHA-256 ([`SourceDigest`]) names the files.
//! Whoever reads one trusts nothing of it but that digest.
//!
//! [`SourceDigest`]: crate::job::SourceDigest

mod folders;
mod ignore;
mod known;
mod list;
mod pack;
#[cfg(test)]
mod tests;
mod unpack;

pub use folders::{SourceFolder, SourceFolders, SourceIntake};
pub use ignore::IGNORE_FILE;
pub use known::known;
pub use list::{SourceFile, SourceList, list, list_by};
pub use pack::{PackedSources, check_texts, pack, pack_texts};
pub use unpack::{SourceSummary, check, unpack};
