#![doc = include_str!("../README.md")]

pub mod apk;
pub mod arch;
pub mod builder;
pub mod error;
pub mod guest;
pub mod limits;
pub mod melange;

#[cfg(feature = "buildkit")]
pub mod buildkit;
#[cfg(feature = "llb")]
pub mod llb;
