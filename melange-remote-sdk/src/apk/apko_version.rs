//! Versions as apko reads and orders them, which decides what a build environment holds.
//!
//! `N(.N)…[letter][_alpha|_beta|_pre|_rc[N]][_cvs|_svn|_git|_hg|_p[N]][-rN]`: one suffix of each kind at most, numbers
//! without regard to leading zeros, and a missing revision is revision 0. The rules of apk-tools, which differ in all
//! of these, are in [`super::version`].

use std::cmp::Ordering;

/// Suffixes that make a version older, in order.
const BEFORE: [&str; 4] = ["alpha", "beta", "pre", "rc"];
/// Suffixes that make a version newer, in order.
const AFTER: [&str; 5] = ["cvs", "svn", "git", "hg", "p"];

/// A version that parsed; it borrows the text that it was read from.
///
/// ```
/// use melange_remote_sdk::apk::apko_version::ApkoVersion;
/// let v = |text| ApkoVersion::parse(text).unwrap();
/// assert_eq!(v("1.2"), v("1.02-r0"));
/// assert!(v("1.2") < v("1.2-r1"));
/// assert!(v("1.2.3-r4").is_like(&v("1.2")));
/// assert!(ApkoVersion::parse("1_rc1_beta2").is_none());
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ApkoVersion<'a> {
    /// The numbers with their dots.
    numbers: &'a str,
    /// 0 without a letter.
    letter: u8,
    /// Position among [`BEFORE`], or one behind the last.
    before: usize,
    before_number: u64,
    /// Position among [`AFTER`] plus one, or 0.
    after: usize,
    after_number: u64,
    revision: u64,
}

impl<'a> ApkoVersion<'a> {
    /// Reads a version; `None` when the text is none, or a number is larger than upstream's integers.
    pub fn parse(text: &'a str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (numbers, mut rest) = text.split_at(end);
        for part in numbers.split('.') {
            number(part)?;
        }
        let mut version = Self {
            numbers,
            letter: 0,
            before: BEFORE.len(),
            before_number: 0,
            after: 0,
            after_number: 0,
            revision: 0,
        };
        if let Some(letter @ b'a'..=b'z') = rest.bytes().next() {
            version.letter = letter;
            rest = &rest[1..];
        }
        if let Some((at, digits, after)) = suffix(rest, &BEFORE) {
            (version.before, version.before_number) = (at, digits?);
            rest = after;
        }
        if let Some((at, digits, after)) = suffix(rest, &AFTER) {
            (version.after, version.after_number) = (at + 1, digits?);
            rest = after;
        }
        if let Some(digits) = rest.strip_prefix("-r") {
            version.revision = number(digits)?;
            rest = "";
        }
        rest.is_empty().then_some(version)
    }

    /// Whether this version lies in what `~required` stands for: its numbers begin with the required ones and, where
    /// there are no more of them, whatever else the requirement names is the same.
    pub fn is_like(&self, required: &Self) -> bool {
        let (mut own, mut wanted) = (self.parts(), required.parts());
        loop {
            match (own.next(), wanted.next()) {
                (Some(a), Some(b)) if a == b => {}
                (None, None) => break,
                (Some(_), None) => return true,
                _ => return false,
            }
        }
        (required.letter == 0 || required.letter == self.letter)
            && (required.before == BEFORE.len() || required.before == self.before)
            && (required.before_number == 0 || required.before_number == self.before_number)
            && (required.after == 0 || required.after == self.after)
            && (required.after_number == 0 || required.after_number == self.after_number)
            && (required.revision == 0 || required.revision == self.revision)
    }

    fn parts(&self) -> impl Iterator<Item = u64> + 'a {
        self.numbers.split('.').map(|part| number(part).unwrap_or_default())
    }
}

/// A number as upstream holds it.
fn number(digits: &str) -> Option<u64> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten().filter(|value| *value <= i64::MAX.unsigned_abs())
}

/// One of `names` behind an underscore with its number, and what follows.
fn suffix<'t>(text: &'t str, names: &[&str]) -> Option<(usize, Option<u64>, &'t str)> {
    let text = text.strip_prefix('_')?;
    let end = text.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(text.len());
    let at = names.iter().position(|name| *name == &text[..end])?;
    let rest = &text[end..];
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let digits = if end == 0 { Some(0) } else { number(&rest[..end]) };
    Some((at, digits, &rest[end..]))
}

impl Ord for ApkoVersion<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts()
            .cmp(other.parts())
            .then(self.letter.cmp(&other.letter))
            .then(self.before.cmp(&other.before))
            .then(self.before_number.cmp(&other.before_number))
            .then(self.after.cmp(&other.after))
            .then(self.after_number.cmp(&other.after_number))
            .then(self.revision.cmp(&other.revision))
    }
}

impl PartialOrd for ApkoVersion<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ApkoVersion<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for ApkoVersion<'_> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn order_and_likeness() {
        let v = |text| ApkoVersion::parse(text).unwrap();
        let ladder = [
            "1_alpha", "1_alpha2", "1_rc", "1", "1-r1", "1_git", "1_p", "1_p1-r3", "1a", "1.0", "1.1",
            "1.01.1",
        ];
        for pair in ladder.windows(2) {
            assert!(v(pair[0]) < v(pair[1]), "{pair:?}");
        }
        for (actual, required, expected) in [
            ("1.2.3-r4", "1.2-r9", true),
            ("1.2-r4", "1.2-r0", true),
            ("1.2-r4", "1.2-r00", true),
            ("1.2-r4", "1.2-r3", false),
            ("1.20", "1.2", false),
            ("1.2", "1.2.0", false),
            ("1.2_p1", "1.2", true),
            ("1.2", "1.2_p1", false),
            ("1.2a", "1.2", true),
        ] {
            assert_eq!(v(actual).is_like(&v(required)), expected, "{actual} ~{required}");
        }
        for text in ["", "1.", ".1", "1..2", "v1", "1-r", "1ab", "1_p1_rc1", "1+2", "99999999999999999999"] {
            assert!(ApkoVersion::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in "[0-9a-z_.\\-é]{0,20}") {
            let _ = ApkoVersion::parse(&text).map(|version| version.is_like(&version));
        }
    }
}
