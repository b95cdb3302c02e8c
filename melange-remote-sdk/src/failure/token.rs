//! The tokens that [`super::normalise`] tells apart, each recognised at the beginning of a text. Pure.
//!
//! Each function looks no further than the token that it returns, or than a fixed length.

/// The length of a token in bytes, and what takes its place; `None` when it stays.
pub(super) type Token = (usize, Option<String>);

/// What takes the place of tokens; a line may hold them already.
const PLACEHOLDERS: [&str; 9] =
    ["<n>", "<ver>", "<time>", "<hash>", "<hex>", "<uuid>", "<pkg>", "<tmp>", "<ip>"];
const URL_SCHEMES: [&str; 6] = ["https://", "http://", "ftp://", "git://", "ssh://", "git+ssh://"];
const URL_PLACEHOLDER: &str = "<url:";
const NAME_KINDS: [&str; 4] = ["so:", "cmd:", "pc:", "cmake:"];
const DIGESTS: [&str; 4] = ["sha1", "sha256", "sha384", "sha512"];
/// Units of counts; of two that begin alike the longer one stands first.
const UNITS: [&str; 18] =
    ["ms", "us", "ns", "KiB", "MiB", "GiB", "TiB", "kB", "KB", "MB", "GB", "s", "m", "h", "%", "K", "M", "G"];
/// The longest quoted text that counts as an identifier, in bytes.
const QUOTED_BYTES_MAX: usize = 64;
/// The least length of a checksum in base64.
const BASE64_MIN: usize = 20;

/// A token that is replaced.
pub(super) fn replaced(length: usize, replacement: &str) -> Token {
    (length, Some(replacement.to_owned()))
}

/// Letters, digits and `_`.
pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The text up to a length in bytes, whole characters only.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or(text)
}

/// How many bytes at the beginning of `text` are of characters that `is_in` tells.
fn run(text: &str, is_in: impl Fn(char) -> bool) -> usize {
    text.find(|c| !is_in(c)).unwrap_or(text.len())
}

fn digits(text: &str) -> usize {
    run(text, |c| c.is_ascii_digit())
}

fn after(text: &str, length: usize) -> &str {
    text.get(length..).unwrap_or_default()
}

/// Whether no word goes on at `length`.
fn ends_at(text: &str, length: usize) -> bool {
    !after(text, length).starts_with(is_word)
}

/// A word, or one character that is in none.
pub(super) fn word(text: &str) -> usize {
    match run(text, is_word) {
        0 => text.chars().next().map_or(0, char::len_utf8),
        length => length,
    }
}

/// White space becomes one space.
pub(super) fn space(text: &str) -> Option<Token> {
    let length = run(text, char::is_whitespace);
    (length > 0).then(|| replaced(length, " "))
}

/// The line and column behind a file's name: `:12:3`, `:12`.
pub(super) fn place(text: &str, before: char) -> Option<Token> {
    let line = digits(text.strip_prefix(':')?);
    if line == 0 || !(is_word(before) || before == ')') {
        return None;
    }
    let mut length = 1 + line;
    let column = after(text, length).strip_prefix(':').map_or(0, digits);
    if column > 0 {
        length += 1 + column;
    }
    let next = after(text, length).chars().next();
    let ends = next.is_none_or(|next| next.is_whitespace() || matches!(next, ':' | ')' | ','));
    ends.then(|| replaced(length, ":<n>"))
}

/// One of the words that this pass writes itself.
pub(super) fn placeholder(text: &str) -> Option<usize> {
    if let Some(host) = text.strip_prefix(URL_PLACEHOLDER) {
        let end = run(host, |c| !c.is_whitespace() && !matches!(c, '<' | '>'));
        return after(host, end).starts_with('>').then(|| URL_PLACEHOLDER.len() + end + 1);
    }
    PLACEHOLDERS.iter().find(|known| text.starts_with(**known)).map(|known| known.len())
}

/// The ending of a shared object's name, `.so.3`: libraries with different numbers are different things.
pub(super) fn soname(text: &str) -> Option<usize> {
    let number = text.strip_prefix(".so.")?;
    let length = run(number, |c| c.is_ascii_digit() || c == '.');
    (length > 0 && ends_at(number, length))
        .then(|| ".so.".len() + number.get(..length).unwrap_or_default().trim_end_matches('.').len())
}

/// An identifier in quotes, which stays with its numbers: `'u16'`, `'glib-2.0'`. The own package's name, hashes and file
/// names with versions are no such thing.
pub(super) fn quoted(text: &str, package: &str) -> Option<usize> {
    let open = text.chars().next()?;
    let close: &[char] = match open {
        '\'' => &['\''],
        '"' => &['"'],
        '`' => &['`', '\''],
        '‘' => &['’'],
        '“' => &['”'],
        _ => return None,
    };
    let inside = cut(after(text, open.len_utf8()), QUOTED_BYTES_MAX);
    let length = run(inside, |c| is_word(c) || matches!(c, '.' | '+' | ':' | '-'));
    let identifier = inside.get(..length)?;
    let end = after(inside, length).strip_prefix(close).map(|rest| inside.len() - rest.len())?;
    let is_named = identifier.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && identifier.matches('.').count() <= 1
        && (package.is_empty() || !identifier.starts_with(package));
    (is_named && hash(identifier).is_none()).then(|| open.len_utf8() + end)
}

/// An address becomes its host, which is the cause as often as not.
pub(super) fn url(text: &str) -> Option<Token> {
    let scheme = URL_SCHEMES.iter().find(|scheme| text.starts_with(**scheme))?;
    let ends = |c: char| c.is_whitespace() || c.is_control() || "'\"<>)`’”".contains(c);
    let rest = after(text, scheme.len());
    let rest = rest.get(..run(rest, |c| !ends(c))).unwrap_or_default();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default();
    Some((scheme.len() + rest.len(), Some(format!("{URL_PLACEHOLDER}{host}>"))))
}

/// The first address of a line, as [`url`] gives it.
pub(super) fn first_url(text: &str) -> Option<String> {
    let at = text.match_indices("://").find_map(|(at, _)| {
        let before = text.get(..at)?;
        let scheme = before.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '+');
        url(text.get(scheme.len()..)?)
    });
    at.and_then(|(_, replacement)| replacement)
}

/// What packages provide and need: `so:libfoo.so.3`, `py3.12:numpy`.
pub(super) fn kept_name(text: &str) -> Option<usize> {
    let kind = NAME_KINDS.iter().find(|kind| text.starts_with(**kind)).map(|kind| kind.len());
    let kind = kind.or_else(|| {
        let minor = text.strip_prefix("py3")?;
        let length = minor.strip_prefix('.').map_or(0, |minor| 1 + digits(minor));
        after(minor, length).starts_with(':').then_some("py3:".len() + length)
    })?;
    let name = run(after(text, kind), |c| !c.is_whitespace() && !",;()'\"".contains(c));
    (name > 0).then_some(kind + name)
}

/// Whether the characters of `text` begin as `shape`, in which `9` stands for any digit.
fn has_shape(text: &str, shape: &str) -> bool {
    let mut characters = text.chars();
    shape.chars().all(|wanted| {
        characters.next().is_some_and(|c| if wanted == '9' { c.is_ascii_digit() } else { c == wanted })
    })
}

/// A date, a time of day, or both: `2026-11-25T10:00:01.5Z`, `10:00:01,250`.
pub(super) fn time(text: &str) -> Option<Token> {
    const DATE: &str = "9999-99-99";
    if !has_shape(text, DATE) {
        let length = clock(text).filter(|_| has_shape(text, "99:99:99"))?;
        return ends_at(text, length).then(|| replaced(length, "<time>"));
    }
    let rest = after(text, DATE.len());
    let Some(length) = rest.strip_prefix(['T', ' ']).and_then(clock) else {
        return ends_at(text, DATE.len()).then(|| replaced(DATE.len(), "<time>"));
    };
    let length = DATE.len() + 1 + length;
    let zone = after(text, length);
    let zone = match zone.chars().next() {
        Some('Z') => 1,
        Some('+' | '-') if has_shape(after(zone, 1), "99:99") => "+99:99".len(),
        Some('+' | '-') if has_shape(after(zone, 1), "9999") => "+9999".len(),
        _ => 0,
    };
    Some(replaced(length + zone, "<time>"))
}

/// Hours and minutes, maybe seconds, maybe parts of them.
fn clock(text: &str) -> Option<usize> {
    if !has_shape(text, "99:99:99") {
        return has_shape(text, "99:99").then_some("99:99".len());
    }
    let length = "99:99:99".len();
    let part = after(text, length).strip_prefix(['.', ',']).map_or(0, digits);
    Some(if part > 0 { length + 1 + part } else { length })
}

/// Checksums, commits, addresses in memory, UUIDs.
pub(super) fn hash(text: &str) -> Option<Token> {
    let is_hex = |c: char| c.is_ascii_hexdigit();
    if let Some(rest) = DIGESTS.iter().find_map(|name| text.strip_prefix(name)) {
        let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
        let found = match rest.chars().next() {
            Some(':') => Some(run(after(rest, 1), is_hex)).filter(|length| *length > 0),
            Some('-') => Some(run(after(rest, 1), base64)).filter(|length| *length >= BASE64_MIN),
            _ => None,
        };
        if let Some(length) = found {
            return Some(replaced(text.len() - rest.len() + 1 + length, "<hash>"));
        }
    }
    if let Some(rest) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let length = run(rest, is_hex);
        return (length > 0 && ends_at(rest, length)).then(|| replaced(2 + length, "<hex>"));
    }
    if let Some(length) = uuid(text) {
        return Some(replaced(length, "<uuid>"));
    }
    let length = run(text, is_hex);
    let word = text.get(..length).unwrap_or_default();
    let has_both =
        word.contains(|c: char| c.is_ascii_digit()) && word.contains(|c: char| c.is_ascii_alphabetic());
    (length >= 7 && has_both && ends_at(text, length)).then(|| replaced(length, "<hash>"))
}

fn uuid(text: &str) -> Option<usize> {
    let mut length = 0;
    for (index, part) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        let rest = after(text, length);
        let rest = if index == 0 { rest } else { rest.strip_prefix('-')? };
        if run(cut(rest, part + 1), |c| c.is_ascii_hexdigit()) != part {
            return None;
        }
        length += part + usize::from(index > 0);
    }
    ends_at(text, length).then_some(length)
}

/// A version, an IP address or a count with its unit. A number that a word goes on from is a part of it: `2to3`.
pub(super) fn number(text: &str, before: char) -> Option<Token> {
    let sign = usize::from(matches!(text.chars().next(), Some('-' | 'v')));
    let body = after(text, sign);
    let length = digits(body);
    if length == 0 {
        return None;
    }
    let dotted = dotted(body);
    let dots = body.get(..dotted).unwrap_or_default().matches('.').count();
    let is_count = !text.starts_with('v') && dots <= 1;
    if is_count && let Some(length) = count(body) {
        // In templates such as `array<int, 3>` a number is a part of the type's name.
        let is_template = before == '<' || after(body, length).starts_with('>');
        let is_plain = dots == 0 || length > dotted || has_unit_apart(after(body, length));
        return match (is_template, is_plain) {
            (true, _) => None,
            (false, true) => Some(replaced(sign + length, "<n>")),
            (false, false) => version(body, dotted).map(|length| replaced(sign + length, "<ver>")),
        };
    }
    if dots == 0 {
        return None;
    }
    if let Some(length) = ip(body, dotted).filter(|_| sign == 0) {
        return Some(replaced(length, "<ip>"));
    }
    version(body, dotted).map(|length| replaced(sign + length, "<ver>"))
}

/// Numbers with dots between them.
fn dotted(text: &str) -> usize {
    let mut length = digits(text);
    while let Some(next) = after(text, length).strip_prefix('.').map(digits).filter(|next| *next > 0) {
        length += 1 + next;
    }
    length
}

/// A number, or several with units such as `1m20.5s`.
fn count(text: &str) -> Option<usize> {
    let mut length = 0;
    loop {
        let rest = after(text, length);
        let whole = digits(rest);
        if whole == 0 {
            break;
        }
        let part = after(rest, whole).strip_prefix('.').map_or(0, digits);
        length += whole + if part > 0 { 1 + part } else { 0 };
        let rest = after(text, length);
        match UNITS.iter().find(|unit| rest.starts_with(**unit)) {
            Some(unit) => length += unit.len(),
            None => break,
        }
    }
    ends_at(text, length).then_some(length)
}

/// Whether a unit follows a number after a space: `0.02 sec`, `1.5 MB`.
fn has_unit_apart(text: &str) -> bool {
    let Some(text) = text.strip_prefix(' ') else { return false };
    let units = ["sec", "seconds"].iter().chain(&UNITS);
    units.into_iter().any(|unit| text.strip_prefix(unit).is_some_and(|rest| !rest.starts_with(is_word)))
}

fn ip(text: &str, dotted: usize) -> Option<usize> {
    let parts = text.get(..dotted)?;
    let is_ip = parts.split('.').count() == 4 && parts.split('.').all(|part| part.len() <= 3);
    if !is_ip || !ends_at(text, dotted) {
        return None;
    }
    let port = after(text, dotted).strip_prefix(':').map_or(0, digits);
    Some(if port > 0 { dotted + 1 + port } else { dotted })
}

/// Numbers with dots and what belongs to them: `1.2.3rc1`, `1.2.3-r5`, `1.2.3-rc1`.
fn version(text: &str, dotted: usize) -> Option<usize> {
    let mut length = dotted + run(after(text, dotted), is_word);
    while let Some(rest) = after(text, length).strip_prefix(['-', '+', '~']) {
        let tail = run(rest, |c| c.is_ascii_alphanumeric());
        let has_digit = rest.get(..tail).is_some_and(|tail| tail.contains(|c: char| c.is_ascii_digit()));
        if !has_digit || !ends_at(rest, tail) {
            break;
        }
        length += 1 + tail;
    }
    Some(length)
}
