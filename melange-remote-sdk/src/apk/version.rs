//! Versions of packages: syntax and order as apk-tools has them.
//!
//! `digits[.digits]…[letter][_suffix[digits]]…[~hash][-r digits]`; source of the order: apk-tools'
//! `version.c`, checked against both of its major versions.

use std::cmp::Ordering;
use std::fmt;

/// Suffixes in order; those before the gap make a version older, those behind it newer.
const SUFFIXES: [&str; 9] = ["alpha", "beta", "pre", "rc", "cvs", "svn", "git", "hg", "p"];
const FIRST_POST_SUFFIX: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Token {
    First(String),
    Digits(String),
    Letter(u8),
    Suffix(usize),
    SuffixNumber(String),
    Hash(String),
    Revision(String),
}

impl Token {
    /// The later a kind may stand, the higher its rank; the end of a version ranks highest.
    fn rank(&self) -> usize {
        match self {
            Self::First(_) => 0,
            Self::Digits(_) => 1,
            Self::Letter(_) => 2,
            Self::Suffix(_) => 3,
            Self::SuffixNumber(_) => 4,
            Self::Hash(_) => 5,
            Self::Revision(_) => 6,
        }
    }
}

const END_RANK: usize = 7;

/// A version that parsed.
///
/// ```
/// use melange_remote_sdk::apk::version::Version;
/// let v = |text| Version::parse(text).unwrap();
/// assert!(v("1.2_rc1") < v("1.2"));
/// assert!(v("1.2") < v("1.2_p1"));
/// assert!(v("1.9-r3") < v("1.10"));
/// assert!(Version::parse("1.0+dfsg").is_none());
/// ```
#[derive(Debug, Clone)]
pub struct Version {
    text: String,
    tokens: Vec<Token>,
}

impl Version {
    /// Reads a version; `None` when the text is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut tokens = Vec::new();
        let (digits, mut rest) = take_digits(text)?;
        tokens.push(Token::First(digits.to_owned()));
        while let Some(after) = rest.strip_prefix('.') {
            let (digits, after) = take_digits(after)?;
            tokens.push(Token::Digits(digits.to_owned()));
            rest = after;
        }
        if let Some(letter @ b'a'..=b'z') = rest.bytes().next() {
            tokens.push(Token::Letter(letter));
            rest = &rest[1..];
        }
        while let Some(after) = rest.strip_prefix('_') {
            let end = after.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(after.len());
            let suffix = SUFFIXES.iter().position(|suffix| *suffix == &after[..end])?;
            tokens.push(Token::Suffix(suffix));
            rest = &after[end..];
            if let Some((digits, after)) = take_digits(rest) {
                tokens.push(Token::SuffixNumber(digits.to_owned()));
                rest = after;
            }
        }
        if let Some(after) = rest.strip_prefix('~') {
            let end = after.find(|c: char| !matches!(c, '0'..='9' | 'a'..='f')).unwrap_or(after.len());
            if end == 0 {
                return None;
            }
            tokens.push(Token::Hash(after[..end].to_owned()));
            rest = &after[end..];
        }
        if let Some(after) = rest.strip_prefix("-r") {
            let (digits, after) = take_digits(after)?;
            tokens.push(Token::Revision(digits.to_owned()));
            rest = after;
        }
        rest.is_empty().then(|| Self { text: text.to_owned(), tokens })
    }

    /// The version as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether this version lies in what `~required` stands for: all that begins with it.
    pub fn is_like(&self, required: &Self) -> bool {
        self.tokens.len() >= required.tokens.len()
            && self
                .tokens
                .iter()
                .zip(&required.tokens)
                .all(|(a, b)| compare_tokens(a, b) == Some(Ordering::Equal))
    }
}

fn take_digits(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn compare_numbers(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// The order of two tokens of one kind; `None` for different kinds.
fn compare_tokens(a: &Token, b: &Token) -> Option<Ordering> {
    Some(match (a, b) {
        // A leading zero makes the part a fraction: 1.01 is older than 1.1.
        (Token::Digits(a), Token::Digits(b)) if a.starts_with('0') || b.starts_with('0') => a.cmp(b),
        (Token::First(a), Token::First(b))
        | (Token::Digits(a), Token::Digits(b))
        | (Token::SuffixNumber(a), Token::SuffixNumber(b))
        | (Token::Revision(a), Token::Revision(b)) => compare_numbers(a, b),
        (Token::Letter(a), Token::Letter(b)) => a.cmp(b),
        (Token::Suffix(a), Token::Suffix(b)) => a.cmp(b),
        (Token::Hash(a), Token::Hash(b)) => a.cmp(b),
        _ => return None,
    })
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let mut index = 0;
        loop {
            let (a, b) = (self.tokens.get(index), other.tokens.get(index));
            index += 1;
            if let (Some(a), Some(b)) = (a, b) {
                match compare_tokens(a, b) {
                    Some(Ordering::Equal) => continue,
                    Some(order) => return order,
                    None => {}
                }
            }
            let older =
                |token: Option<&Token>| matches!(token, Some(Token::Suffix(s)) if *s < FIRST_POST_SUFFIX);
            let rank = |token: Option<&Token>| token.map_or(END_RANK, Token::rank);
            return match (older(a), older(b)) {
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
                _ => rank(b).cmp(&rank(a)),
            };
        }
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn order_of_a_ladder() {
        let ladder = [
            "1.01",
            "1.1_alpha",
            "1.1_beta2",
            "1.1_rc1",
            "1.1",
            "1.1-r1",
            "1.1_git20240101",
            "1.1_p1",
            "1.1_p1-r1",
            "1.1a",
            "1.1.0",
            "1.2",
            "1.10",
            "2",
        ];
        for pair in ladder.windows(2) {
            let (a, b) = (Version::parse(pair[0]).unwrap(), Version::parse(pair[1]).unwrap());
            assert!(a < b, "{a} < {b}");
            assert!(b > a, "{b} > {a}");
        }
    }

    #[test]
    fn fuzzy_is_a_prefix_of_parts() {
        let required = Version::parse("1.2").unwrap();
        for (text, expected) in
            [("1.2", true), ("1.2.0", true), ("1.2.9-r4", true), ("1.20", false), ("1.3", false)]
        {
            assert_eq!(Version::parse(text).unwrap().is_like(&required), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn order_is_total(a in VERSION, b in VERSION, c in VERSION) {
            let (Some(a), Some(b), Some(c)) = (Version::parse(&a), Version::parse(&b), Version::parse(&c)) else {
                return Ok(());
            };
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
        }
    }

    const VERSION: &str = "[0-9]{1,2}(\\.[1-9][0-9]?){0,2}[a-c]?(_(alpha|rc|p|git)[0-9]?){0,2}(-r[0-9])?";
}
