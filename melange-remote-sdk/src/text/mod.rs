//! Texts that people write: YAML with the place of every value, and mistakes told with the place, the text
//! underlined and a hint. And texts that people read in one line.

pub mod diagnostics;
pub mod quantity;
pub mod sarif;
pub mod shell;
pub(crate) mod strict;
pub mod yaml;

/// A text as one line of at most so many bytes; of a longer one the beginning, with `…`.
pub fn one_line(text: &str, bytes_max: usize) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let mut line = words.collect::<Vec<_>>().join(" ");
    if line.len() > bytes_max {
        line.truncate(line.floor_char_boundary(bytes_max));
        line.push('…');
    }
    line
}
