//! Conditions (`if:`): comparisons of strings joined by `&&` and `||`, left to right with equal precedence.

/// Evaluates a condition whose variables are substituted already; an empty one holds.
///
/// # Errors
/// The cause in words and the byte where it stands.
pub fn evaluate(text: &str) -> Result<bool, ExpressionError> {
    let mut parser = Parser { text, at: 0 };
    parser.blank();
    if parser.at == text.len() {
        return Ok(true);
    }
    let value = parser.expression(0)?;
    if parser.at < text.len() {
        return Err(parser.error("unexpected text behind the condition"));
    }
    Ok(value)
}

/// A condition that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpressionError {
    /// What is wrong.
    pub message: String,
    /// The byte where it stands.
    pub offset: usize,
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

const DEPTH_MAX: usize = 64;

impl Parser<'_> {
    fn error(&self, message: impl Into<String>) -> ExpressionError {
        ExpressionError { message: message.into(), offset: self.at }
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn blank(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn take(&mut self, token: &str) -> bool {
        if !self.rest().starts_with(token) {
            return false;
        }
        self.at += token.len();
        self.blank();
        true
    }

    fn expression(&mut self, depth: usize) -> Result<bool, ExpressionError> {
        if depth > DEPTH_MAX {
            return Err(self.error("the condition is nested too deep"));
        }
        let mut value = self.atom(depth)?;
        loop {
            if self.take("&&") {
                value &= self.atom(depth)?;
            } else if self.take("||") {
                value |= self.atom(depth)?;
            } else {
                return Ok(value);
            }
        }
    }

    fn atom(&mut self, depth: usize) -> Result<bool, ExpressionError> {
        if self.take("(") {
            let value = self.expression(depth + 1)?;
            return if self.take(")") { Ok(value) } else { Err(self.error("`)` is missing")) };
        }
        let left = self.string()?;
        if self.take("==") {
            Ok(left == self.string()?)
        } else if self.take("!=") {
            Ok(left != self.string()?)
        } else {
            Err(self.error("`==` or `!=` is expected"))
        }
    }

    fn string(&mut self) -> Result<String, ExpressionError> {
        let quote = match self.rest().chars().next() {
            Some(quote @ ('"' | '\'')) => quote,
            Some(other) => {
                return Err(self.error(format!("unexpected character {other:?}, a quoted text is expected")));
            }
            None => return Err(self.error("the condition ends where a quoted text is expected")),
        };
        let mut value = String::new();
        let body = self.at + 1;
        let mut chars = self.text[body..].char_indices();
        while let Some((offset, c)) = chars.next() {
            if c == quote {
                self.at = body + offset + 1;
                self.blank();
                return Ok(value);
            }
            if c != '\\' {
                value.push(c);
                continue;
            }
            match chars.next().map(|(_, escaped)| escaped) {
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                Some(escaped @ ('\\' | '\'' | '"')) => value.push(escaped),
                Some(other) => value.extend(['\\', other]),
                None => break,
            }
        }
        Err(self.error(format!("the text that begins with {quote} never ends")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn table() {
        for (text, expected) in [
            ("", true),
            ("  ", true),
            ("'a' == \"a\"", true),
            ("'a'=='b'", false),
            ("'a' != 'b' && 'c' == 'c'", true),
            ("'a' == 'a' || 'a' == 'a' && 'a' == 'b'", false),
            ("'a' == 'a' || ('a' == 'a' && 'a' == 'b')", true),
            (r#""x\"y" == 'x"y'"#, true),
            (r"'\c' == '\\c'", true),
        ] {
            assert_eq!(evaluate(text), Ok(expected), "{text}");
        }
        for text in ["3.12 == '3.12'", "'a'", "'a' ==", "('a' == 'a'", "'a' == 'a' x", "'a", "\u{e9} == ''"] {
            assert!(evaluate(text).is_err(), "{text}");
        }
        assert!(evaluate(&"(".repeat(10_000)).is_err());
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in "(['\"()=!&|\\\\ aé]){0,24}") {
            let _ = evaluate(&text);
        }
    }
}
