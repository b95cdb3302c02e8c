//! A text of the definition with its place.

use std::ops::Deref;

use serde::{Serialize, Serializer};

use super::Position;

/// A scalar as written, with the place where it begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text {
    /// The text.
    pub value: String,
    /// Where it begins; line 0 when it stands nowhere.
    pub at: Position,
}

impl Text {
    /// The same place with another text.
    #[must_use]
    pub fn map(&self, change: impl FnOnce(&str) -> String) -> Self {
        Self { value: change(&self.value), at: self.at }
    }

    /// A text that stands nowhere in the source.
    pub fn made(value: impl Into<String>) -> Self {
        Self { value: value.into(), at: Position::default() }
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.value)
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.value
    }
}
