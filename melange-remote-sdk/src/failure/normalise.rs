//! A line that tells of a failure → the same line for all jobs that fail of the same. Pure.
//!
//! One pass over the text, token by token: what differs from run to run (times, numbers, hashes, where files lie) becomes
//! a word in angle brackets, what says what is meant (names of libraries, commands and modules) stays.

use crate::limits::{FAILURE_NORMALISED_BYTES_MAX, FAILURE_NORMALISED_FROM_BYTES};

use super::token;

/// Characters that a part of a path may have besides those of words.
const PATH_CHARACTERS: &str = ".+@%~-=";
/// Folders whose entries have names by chance.
const TEMPORARY: [&str; 2] = ["/tmp/", "/var/tmp/"];
/// What stands before the last two parts of a path.
const CUT_PATH: char = '…';

/// The line as it is compared: at most [`FAILURE_NORMALISED_BYTES_MAX`], made from the first
/// [`FAILURE_NORMALISED_FROM_BYTES`]. `package` is the name of the package that failed; it becomes `<pkg>`.
pub(super) fn normalise(line: &str, package: &str) -> String {
    let line = token::cut(line.trim(), FAILURE_NORMALISED_FROM_BYTES);
    let mut pass = Pass { text: line, at: 0, before: ' ', no_path_before: 0, package, out: String::new() };
    pass.run(true);
    token::cut(&pass.out, FAILURE_NORMALISED_BYTES_MAX).trim_end().to_owned()
}

/// Where the pass is. It never goes back: a look ahead either ends in a token or, for paths, is remembered.
struct Pass<'a> {
    text: &'a str,
    at: usize,
    /// The character before `at`; a space at the beginning.
    before: char,
    /// No path begins before this place: it was looked for from an earlier one.
    no_path_before: usize,
    package: &'a str,
    out: String,
}

impl<'a> Pass<'a> {
    fn run(&mut self, with_paths: bool) {
        while let Some(rest) = self.text.get(self.at..).filter(|rest| !rest.is_empty()) {
            if self.out.len() >= FAILURE_NORMALISED_BYTES_MAX {
                break;
            }
            if !(with_paths && self.take_path(rest)) {
                self.take_token(rest);
            }
        }
    }

    fn advance(&mut self, rest: &str, length: usize) {
        self.before = rest.get(..length).and_then(|taken| taken.chars().next_back()).unwrap_or(' ');
        self.at += length;
    }

    fn take_token(&mut self, rest: &str) {
        let replaced = token::space(rest)
            .or_else(|| token::place(rest, self.before))
            .or_else(|| token::quoted(rest, self.package).map(|length| (length, None)))
            .or_else(|| {
                token::placeholder(rest).or_else(|| token::soname(rest)).map(|length| (length, None))
            });
        let replaced = replaced.or_else(|| self.at_boundary(rest));
        let (length, replacement) = replaced.unwrap_or_else(|| (token::word(rest), None));
        match replacement {
            Some(replacement) => self.out.push_str(&replacement),
            None => self.out.push_str(rest.get(..length).unwrap_or_default()),
        }
        self.advance(rest, length);
    }

    /// The tokens that begin where a word may begin.
    fn at_boundary(&self, rest: &str) -> Option<token::Token> {
        if token::is_word(self.before) {
            return None;
        }
        token::url(rest)
            .or_else(|| token::kept_name(rest).map(|length| (length, None)))
            .or_else(|| self.own_package(rest))
            .or_else(|| token::time(rest))
            .or_else(|| token::hash(rest))
            .or_else(|| token::number(rest, self.before))
    }

    /// The name of the package that failed, also with its version behind it, but not as part of another name.
    fn own_package(&self, rest: &str) -> Option<token::Token> {
        if self.package.is_empty() || self.before == '-' {
            return None;
        }
        let after = rest.strip_prefix(self.package)?;
        let mut after = after.chars();
        let is_part = match after.next() {
            Some('-') => after.next().is_some_and(|next| !next.is_ascii_digit() && next != '<'),
            Some(next) => token::is_word(next),
            None => false,
        };
        (!is_part).then(|| token::replaced(self.package.len(), "<pkg>"))
    }

    /// A path of three parts, or of two below the root, becomes its last two.
    fn take_path(&mut self, rest: &'a str) -> bool {
        let follows = token::is_word(self.before) || matches!(self.before, '<' | '.' | ':' | '/' | CUT_PATH);
        if follows || self.at < self.no_path_before || token::url(rest).is_some() {
            return false;
        }
        let (length, least) = path(rest);
        let path = rest.get(..length).unwrap_or_default();
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (folder, name) = match parts.as_slice() {
            [.., folder, name] if parts.len() >= least => (*folder, *name),
            _ => {
                self.no_path_before = self.at + length;
                return false;
            }
        };
        let temporary = TEMPORARY.iter().find_map(|folder| path.strip_prefix(folder));
        let by_chance = temporary.and_then(|below| below.split('/').next());
        self.out.push(CUT_PATH);
        for (part, depth) in [(folder, 2), (name, 1)] {
            self.out.push('/');
            let is_by_chance = temporary.is_some_and(|below| below.split('/').count() == depth);
            if is_by_chance && by_chance == Some(part) {
                self.out.push_str("<tmp>");
            } else {
                self.part(part);
            }
        }
        self.advance(rest, length);
        true
    }

    fn part(&mut self, part: &'a str) {
        let out = std::mem::take(&mut self.out);
        let mut inner =
            Pass { text: part, at: 0, before: '/', no_path_before: 0, package: self.package, out };
        inner.run(false);
        self.out = inner.out;
    }
}

/// The length of what could be a path at the beginning of `text`, and how many parts it must have to be one. A part does
/// not follow a slash twice, and the first one of a path without a root has no `=`.
fn path(text: &str) -> (usize, usize) {
    let has_root = ["/", "./", "../"].iter().any(|root| text.starts_with(root));
    let mut length = 0;
    let mut before = ' ';
    let mut in_first = !has_root;
    for next in text.chars() {
        let is_slash = next == '/' && before != '/';
        let is_part = token::is_word(next) || (PATH_CHARACTERS.contains(next) && !(in_first && next == '='));
        if !(is_slash || is_part) {
            break;
        }
        in_first = in_first && next != '/';
        length += next.len_utf8();
        before = next;
    }
    let dots = text.get(..length).unwrap_or_default().starts_with('.') && has_root;
    (length, if !has_root || dots { 3 } else { 2 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn each(cases: &[(&str, &str)]) {
        for (line, normal) in cases {
            assert_eq!(normalise(line, "groff"), *normal, "{line}");
            assert_eq!(normalise(normal, "groff"), *normal, "again: {line}");
        }
    }

    #[test]
    fn addresses_keep_their_host() {
        each(&[
            ("GET https://me:word@ftp.gnu.org:8080/a/b?c=1 failed", "GET <url:ftp.gnu.org> failed"),
            ("clone 'git://x.org/a.git'", "clone '<url:x.org>'"),
            ("dial tcp 10.1.2.3:443: refused", "dial tcp <ip>: refused"),
        ]);
    }

    #[test]
    fn times_and_numbers_go() {
        each(&[
            ("2026-11-25T10:00:01.5Z done in 3.21s", "<time> done in <n>"),
            ("2026-11-25 10:00:01+02:00 x", "<time> x"),
            ("[10:00:01,250] x", "[<time>] x"),
            ("took 1m20.5s, 30% of 12MiB", "took <n>, <n> of <n>"),
            ("Error 127 at line 12", "Error <n> at line <n>"),
            ("offset -12 and x-12", "offset <n> and x-<n>"),
            ("array<int, 3> vector<4>", "array<int, 3> vector<4>"),
            ("i686 x86_64 u16 2to3 utf8", "i686 x86_64 u16 2to3 utf8"),
        ]);
    }

    #[test]
    fn hashes_go() {
        each(&[
            ("commit deadbeef12 is not 0123abcd", "commit <hash> is not <hash>"),
            ("defaced facade 1234567", "defaced facade <n>"),
            ("sha256:aa11 sha512-AbC+/9aaaaaaaaaaaaaaaaaaaa==", "<hash> <hash>"),
            ("at 0x7ffe12ab", "at <hex>"),
            ("f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "<uuid>"),
        ]);
    }

    #[test]
    fn places_and_paths_are_shortened() {
        each(&[
            ("src/a.c:12:3: error: x", "src/a.c:<n>: error: x"),
            ("a.py(12): x", "a.py(<n>): x"),
            ("/home/build/x-1.2/foo/bar/baz.h:7: x", "…/bar/baz.h:<n>: x"),
            ("/usr/include/x.h and /tmp", "…/include/x.h and /tmp"),
            ("./lib/a/b.c ../x.c ./a.c", "…/a/b.c ../x.c ./a.c"),
            ("--prefix=/usr/local/foo-1.2.3/bin", "--prefix=…/foo-<ver>/bin"),
            ("/tmp/ccX3d9aB.o: in function", "…/tmp/<tmp>: in function"),
            ("/tmp/build-x/a.c and /tmp/z/y/a.c", "…/<tmp>/a.c and …/y/a.c"),
            ("a//b/c n/a and/or", "a//b/c n/a and/or"),
        ]);
    }

    #[test]
    fn versions_go() {
        each(&[
            ("zlib-1.3.1-r5: masked in v2.0", "zlib-<ver>: masked in <ver>"),
            ("foo-1.2.3.tar.gz 1.2.3rc1 1.2.3-rc1", "foo-<ver>.tar.gz <ver> <ver>"),
        ]);
    }

    #[test]
    fn names_of_the_package_world_and_quoted_identifiers_stay() {
        each(&[
            ("so:libfoo.so.3 (no such package)", "so:libfoo.so.3 (no such package)"),
            ("cmd:python3.12 pc:gtk4>=4.12 cmake:Qt6", "cmd:python3.12 pc:gtk4>=4.12 cmake:Qt6"),
            ("py3.12:numpy, py3:six", "py3.12:numpy, py3:six"),
            ("libssl.so.3: cannot open", "libssl.so.3: cannot open"),
            ("No package 'glib-2.0' found", "No package 'glib-2.0' found"),
            ("type ‘u16’, `sha256` and \"x-2\"", "type ‘u16’, `sha256` and \"x-2\""),
            ("unknown '12' and 'deadbeef12'", "unknown '<n>' and '<hash>'"),
        ]);
    }

    #[test]
    fn the_own_package_is_no_difference() {
        each(&[
            ("groff: bad 'groff' in groff-1.23", "<pkg>: bad '<pkg>' in <pkg>-<ver>"),
            ("groff-dev mygroff groffer my-groff", "groff-dev mygroff groffer my-groff"),
            ("/usr/share/groff/site.tmac", "…/<pkg>/site.tmac"),
        ]);
        assert_eq!(normalise("n 5 <n>", "n"), "<pkg> <n> <n>");
        assert_eq!(normalise("pkg", "pkg"), "<pkg>");
        assert_eq!(normalise("<pkg>", "pkg"), "<pkg>");
    }

    #[test]
    fn white_space_is_one_space_and_the_length_is_bounded() {
        assert_eq!(normalise(" a \t  b\u{a0}c ", ""), "a b c");
        assert_eq!(normalise(&"€ ".repeat(10_000), "").len(), FAILURE_NORMALISED_BYTES_MAX - 1);
        assert_eq!(normalise(&"9".repeat(1 << 20), ""), "<n>");
        assert!(normalise(&"a-".repeat(1 << 20), "a-a").len() <= FAILURE_NORMALISED_BYTES_MAX);
    }

    /// Text of what the pass looks for, and of anything.
    fn texts() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            any::<char>().prop_map(|c| c.to_string()),
            "[a-f0-9]{1,12}",
            "[0-9]{1,4}",
            "[a-z_]{1,6}",
            "[-./:<>@=+'\"`…()~]",
            prop::sample::select(vec![
                "https://",
                "so:",
                "pc:",
                "/tmp/",
                "sha256:",
                "0x",
                "<n>",
                "<url:",
                "…/",
                ".so.",
                "groff",
                " ",
                "v1.",
                "10:00:01",
                "2026-11-25",
                "ms"
            ])
            .prop_map(str::to_owned),
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_text_gives_a_bounded_line(text in texts(), package in "[a-z<0-9-]{0,6}") {
            let normal = normalise(&text, &package);
            prop_assert!(normal.len() <= FAILURE_NORMALISED_BYTES_MAX);
            prop_assert_eq!(&normal, &normalise(&text, &package));
            prop_assert!(!normal.contains("  "));
        }

        /// Where a file lies, and what was counted, makes no difference.
        #[test]
        fn numbers_and_folders_make_no_difference(one in 0u64.., two in 0u64.., folder in "(/[a-z]{1,8}){1,5}") {
            let first = format!("{folder}/x/a.c:{one}:{two}: error: {two} of {one} ms");
            let second = format!("/home/x/a.c:{two}:1: error: {one} of {two} ms");
            prop_assert_eq!(normalise(&first, ""), normalise(&second, ""));
        }
    }
}
