//! Texts that people write: YAML with the place of every value, and mistakes told with the place, the text
//! underlined and a hint.

pub mod diagnostics;
pub mod yaml;
