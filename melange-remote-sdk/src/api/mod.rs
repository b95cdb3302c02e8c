//! The wire format: the only JSON that strangers see.
//!
//! Within a version, fields are added and never renamed, removed or given another meaning. The server refuses
//! request fields that it does not know, with a hint; clients skip response fields that they do not know.

pub mod melange2;
pub mod v1;
pub mod v2;

/// Whether a field says nothing, and is left out.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
