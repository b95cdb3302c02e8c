//! Versions of packages: syntax and order as apk-tools has them.
//!
//! `digits[.digits]…[letter][_suffix[digits]]…[~hash][-r digits]`; source of the order: apk-tools'
//! `version.c`, checked against both of its major versions.

use std::cmp::Ordering;
use std::fmt;

/// Suffixes in order; those before the gap make a version older, those behind it newer.
const SUFFIXES: [&str; 9] = ["alpha", "beta", "pre", "rc", "cvs", "svn", "git", "hg", "p"];
const FIRST_POST_SUFFIX: usize = 4;

/// What a version is made of; the later a kind may stand, the higher its rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    First(&'a [u8]),
    Digits(&'a [u8]),
    Letter(u8),
    Suffix(usize),
    SuffixNumber(&'a [u8]),
    Hash(&'a [u8]),
    Revision(&'a [u8]),
    End,
    /// Text that has no place in a version.
    Invalid,
}

impl Token<'_> {
    fn rank(&self) -> u8 {
        match self {
            Self::First(_) => 0,
            Self::Digits(_) => 1,
            Self::Letter(_) => 2,
            Self::Suffix(_) => 3,
            Self::SuffixNumber(_) => 4,
            Self::Hash(_) => 5,
            Self::Revision(_) => 6,
            Self::End => 7,
            Self::Invalid => 8,
        }
    }

    fn is_pre_release(&self) -> bool {
        matches!(self, Self::Suffix(suffix) if *suffix < FIRST_POST_SUFFIX)
    }
}

/// Reads a version token by token: versions are compared far more often than kept.
struct Tokens<'a> {
    rest: &'a [u8],
    last: Option<u8>,
}

impl<'a> Tokens<'a> {
    fn of(text: &'a str) -> Self {
        Self { rest: text.as_bytes(), last: None }
    }

    /// The next token; [`Token::End`] and [`Token::Invalid`] come again and again.
    fn next(&mut self) -> Token<'a> {
        let token = self.read().unwrap_or(Token::Invalid);
        self.last = Some(token.rank());
        token
    }

    fn read(&mut self) -> Option<Token<'a>> {
        let Some(last) = self.last else { return self.digits().map(Token::First) };
        let [sign, ..] = self.rest else { return (last <= END_RANK).then_some(Token::End) };
        let may_follow = |rank: u8| (last <= rank).then_some(());
        match sign {
            b'.' => {
                may_follow(1)?;
                self.skip(1);
                self.digits().map(Token::Digits)
            }
            b'a'..=b'z' => {
                may_follow(1)?;
                self.skip(1);
                Some(Token::Letter(*sign))
            }
            b'0'..=b'9' => (last == 3).then(|| self.digits().map(Token::SuffixNumber)).flatten(),
            b'_' => {
                may_follow(4)?;
                self.skip(1);
                let name = self.take(u8::is_ascii_lowercase)?;
                SUFFIXES.iter().position(|suffix| suffix.as_bytes() == name).map(Token::Suffix)
            }
            b'~' => {
                may_follow(4)?;
                self.skip(1);
                self.take(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).map(Token::Hash)
            }
            b'-' if self.rest.starts_with(b"-r") => {
                may_follow(5)?;
                self.skip(2);
                self.digits().map(Token::Revision)
            }
            _ => None,
        }
    }

    fn skip(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }

    fn digits(&mut self) -> Option<&'a [u8]> {
        self.take(u8::is_ascii_digit)
    }

    fn take(&mut self, fits: impl Fn(&u8) -> bool) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|byte| !fits(byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        (end > 0).then_some(taken)
    }
}

const END_RANK: u8 = 7;

/// The order of two texts as apk-tools has it, versions or not: what comes before the first sign that has no place in a
/// version counts.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    relate(a, b, false)
}

/// As [`compare`], and equal when `a` begins with the parts of `b`.
pub(crate) fn compare_fuzzy(a: &str, b: &str) -> Ordering {
    relate(a, b, true)
}

fn relate(a: &str, b: &str, fuzzy: bool) -> Ordering {
    let (mut a, mut b) = (Tokens::of(a), Tokens::of(b));
    loop {
        let (a, b) = (a.next(), b.next());
        match compare_tokens(&a, &b) {
            Some(Ordering::Equal) => {}
            Some(order) => return order,
            None if a.rank() == b.rank() || (fuzzy && b == Token::End) => return Ordering::Equal,
            None if a.is_pre_release() => return Ordering::Less,
            None if b.is_pre_release() => return Ordering::Greater,
            None => return b.rank().cmp(&a.rank()),
        }
    }
}

fn compare_numbers(a: &[u8], b: &[u8]) -> Ordering {
    let plain = |digits: &[u8]| digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len());
    let (a, b) = (a.get(plain(a)..).unwrap_or_default(), b.get(plain(b)..).unwrap_or_default());
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// The order of two tokens of one kind; `None` for different kinds and behind the last part.
fn compare_tokens(a: &Token<'_>, b: &Token<'_>) -> Option<Ordering> {
    Some(match (a, b) {
        // A leading zero makes the part a fraction: 1.01 is older than 1.1.
        (Token::Digits(a), Token::Digits(b)) if a.starts_with(b"0") || b.starts_with(b"0") => a.cmp(b),
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

/// Whether a text is a version.
pub(crate) fn is_version(text: &str) -> bool {
    let mut tokens = Tokens::of(text);
    loop {
        match tokens.next() {
            Token::End => return true,
            Token::Invalid => return false,
            _ => {}
        }
    }
}

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
}

impl Version {
    /// Reads a version; `None` when the text is none.
    pub fn parse(text: &str) -> Option<Self> {
        is_version(text).then(|| Self { text: text.to_owned() })
    }

    /// The version as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether this version lies in what `~required` stands for: all that begins with it.
    pub fn is_like(&self, required: &Self) -> bool {
        compare_fuzzy(&self.text, &required.text).is_eq()
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.text, &other.text)
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
