#![doc = include_str!("../README.md")]

pub mod apk;
pub mod arch;
pub mod builder;
#[cfg(feature = "apk")]
pub mod environment;
pub mod error;
pub mod guest;
pub mod limits;
pub mod melange;
#[cfg(feature = "sandbox")]
pub mod sandbox;

#[cfg(feature = "buildkit")]
pub mod buildkit;
#[cfg(feature = "llb")]
pub mod llb;
