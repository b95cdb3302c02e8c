//! From characters to tokens: words with their quotes and expansions, operators, here-documents.

use super::{HereDocument, Placed, Read, Scanner, Stop, Token, wrong};

/// Operators, longer ones first; those of bash alone are marked.
const OPERATORS: [(&str, bool); 11] = [
    (";;&", true),
    (";;", false),
    (";&", true),
    (";", false),
    ("&&", false),
    ("&", false),
    ("||", false),
    ("|&", true),
    ("|", false),
    ("(", false),
    (")", false),
];

/// Redirections, longer ones first; those of bash alone are marked.
const REDIRECTS: [(&str, bool); 12] = [
    ("&>>", true),
    ("&>", true),
    ("<<<", true),
    ("<<-", false),
    ("<<", false),
    ("<&", false),
    ("<>", false),
    ("<", false),
    (">>", false),
    (">&", false),
    (">|", false),
    (">", false),
];

/// Characters that mean something in a word or end it.
const SPECIAL: &str = " \t\r\n;&|<>()\\'\"$`";

const QUOTE_HINT: &str =
    "write the same quote where the text ends; a quote that is meant as a character needs `\\` before it";

impl Scanner<'_> {
    /// The next token, left where it is.
    pub(super) fn peek(&mut self) -> Read<Placed> {
        if let Some(placed) = self.peeked {
            return Ok(placed);
        }
        let placed = self.token()?;
        self.peeked = Some(placed);
        Ok(placed)
    }

    pub(super) fn take(&mut self) -> Read<Placed> {
        let placed = self.peek()?;
        self.peeked = None;
        Ok(placed)
    }

    /// The text of an unquoted word, joined where a backslash splits it over lines.
    pub(super) fn keyword(&self, placed: Placed) -> Option<String> {
        let Token::Word { plain: true } = placed.token else { return None };
        let text = self.text.get(placed.start..placed.end)?;
        Some(text.replace("\\\n", ""))
    }

    pub(super) fn skip_blanks(&mut self) -> Read<()> {
        loop {
            match self.byte() {
                Some(b' ' | b'\t' | b'\r') => self.advance(1)?,
                Some(b'\\') if self.rest().starts_with("\\\n") => self.advance(2)?,
                Some(b'#') => {
                    let end = self.rest().find('\n').unwrap_or(self.rest().len());
                    self.go_to(self.at + end)?;
                }
                _ => return Ok(()),
            }
        }
    }

    fn token(&mut self) -> Read<Placed> {
        self.skip_blanks()?;
        let start = self.at;
        let token = match self.byte() {
            None => {
                self.read_here_documents()?;
                Token::End
            }
            Some(b'\n') => {
                self.advance(1)?;
                self.read_here_documents()?;
                Token::Newline
            }
            Some(_) => self.visible_token()?,
        };
        Ok(Placed { token, start, end: self.at })
    }

    fn visible_token(&mut self) -> Read<Token> {
        let bash = self.is_bash();
        if !matches!(self.byte(), Some(b'<' | b'>' | b'&' | b';' | b'|' | b'(' | b')')) {
            return self.word_or_redirect();
        }
        let is_substitution = bash && (self.rest().starts_with("<(") || self.rest().starts_with(">("));
        let found = |list: &[(&'static str, bool)]| {
            let fits = |(sign, own): &&(&'static str, bool)| (bash || !own) && self.rest().starts_with(sign);
            list.iter().find(fits).map(|(sign, _)| *sign)
        };
        if let Some(sign) = found(&REDIRECTS).filter(|_| !is_substitution) {
            self.advance(sign.len())?;
            return Ok(Token::Redirect(sign));
        }
        if let Some(sign) = found(&OPERATORS) {
            self.advance(sign.len())?;
            return Ok(Token::Operator(sign));
        }
        self.word_or_redirect()
    }

    fn word_or_redirect(&mut self) -> Read<Token> {
        let bash = self.is_bash();
        let start = self.at;
        let plain = self.word()?;
        if !matches!(self.byte(), Some(b'<' | b'>')) || self.in_duplication && bash {
            return Ok(Token::Word { plain });
        }
        // The number or the variable of a redirection belongs to it.
        let written = self.text.get(start..self.at).unwrap_or_default();
        let is_number = !written.is_empty() && written.bytes().all(|byte| byte.is_ascii_digit());
        let is_variable =
            bash && written.starts_with('{') && written.ends_with('}') && !written.contains(',');
        if is_number || is_variable && plain {
            let found = REDIRECTS.iter().find(|(sign, own)| (bash || !own) && self.rest().starts_with(sign));
            if let Some((sign, _)) = found {
                self.advance(sign.len())?;
                return Ok(Token::Redirect(sign));
            }
        }
        Ok(Token::Word { plain })
    }

    /// Reads one word; whether no part of it is quoted or expanded.
    pub(super) fn word(&mut self) -> Read<bool> {
        let start = self.at;
        let mut plain = true;
        loop {
            match self.byte() {
                None | Some(b' ' | b'\t' | b'\r' | b'\n' | b';' | b'&' | b'|' | b')') => return Ok(plain),
                Some(b'<' | b'>') => {
                    if !(self.is_bash() && self.rest().as_bytes().get(1) == Some(&b'(')) {
                        return Ok(plain);
                    }
                    plain = false;
                    self.command_substitution(2)?;
                }
                Some(b'(') => {
                    self.pay(self.at - start)?;
                    if !self.opens_in_word(start) {
                        return Ok(plain);
                    }
                    plain = false;
                    if self.text.get(..self.at).is_some_and(|before| before.ends_with('=')) {
                        self.nested(Self::array)?;
                    } else {
                        self.nested(Self::group)?;
                    }
                }
                Some(b'\\') if self.rest().starts_with("\\\n") => self.advance(2)?,
                Some(b'\\') => {
                    plain = false;
                    self.advance(2)?;
                }
                Some(b'\'' | b'"' | b'$' | b'`') => {
                    plain = false;
                    self.quoted_part()?;
                }
                Some(_) => self.ordinary()?,
            }
        }
    }

    /// Reads the characters up to the next one that means something, at least one.
    fn ordinary(&mut self) -> Read<()> {
        let mut rest = self.rest().char_indices().skip(1);
        let end = rest.find(|(_, c)| SPECIAL.contains(*c)).map_or(self.rest().len(), |(at, _)| at);
        self.advance(end)
    }

    /// Reads what begins with a quote, `$` or a backquote, outside of double quotes.
    pub(super) fn quoted_part(&mut self) -> Read<()> {
        match self.byte() {
            Some(b'\'') => self.single_quoted(),
            Some(b'"') => self.nested(Self::double_quoted),
            Some(b'`') => self.backquoted(false),
            _ => self.expansion(false),
        }
    }

    /// Whether a parenthesis behind a part of a word belongs to the word: bash's lists and extended patterns.
    fn opens_in_word(&self, start: usize) -> bool {
        let before = self.text.get(start..self.at).unwrap_or_default();
        if !self.is_bash() || before.is_empty() {
            return false;
        }
        if let Some(name) = before.strip_suffix('=') {
            let name = name.strip_suffix('+').unwrap_or(name);
            let name = name.split('[').next().unwrap_or(name);
            return !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        }
        // A function's parentheses are empty, and `!` where a command begins is the negation of a group of commands.
        before.ends_with(['?', '*', '+', '@', '!'])
            && (before != "!" || self.in_arguments)
            && !self.rest().starts_with("()")
    }

    /// Reads a parenthesis with what is in it, quotes heeded.
    fn group(&mut self) -> Read<()> {
        let open = self.at;
        let mut depth = 0_usize;
        loop {
            match self.byte() {
                None => return wrong(open, "the `(` is not closed", "write `)` where it ends"),
                Some(b'(') => {
                    depth += 1;
                    self.advance(1)?;
                }
                Some(b')') => {
                    self.advance(1)?;
                    depth -= 1;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                Some(b'\\') => self.advance(2)?,
                Some(b'\'' | b'"' | b'$' | b'`') => self.quoted_part()?,
                Some(_) => self.advance(1)?,
            }
        }
    }

    /// Reads the list of values behind `name=`.
    fn array(&mut self) -> Read<()> {
        let open = self.at;
        self.advance(1)?;
        loop {
            self.skip_blanks()?;
            match self.byte() {
                None => return wrong(open, "the list is not closed", "write `)` behind its last value"),
                Some(b'\n') => self.advance(1)?,
                Some(b')') => return self.advance(1),
                Some(_) => {
                    let before = self.at;
                    let in_arguments = std::mem::replace(&mut self.in_arguments, true);
                    self.word()?;
                    self.in_arguments = in_arguments;
                    if self.at == before {
                        let sign = self.shown(self.at, self.at + 1);
                        let hint = "put values with such characters in quotes";
                        return wrong(self.at, format!("`{sign}` in a list of values"), hint);
                    }
                }
            }
        }
    }

    fn single_quoted(&mut self) -> Read<()> {
        let open = self.at;
        let Some(length) = self.rest().get(1..).and_then(|rest| rest.find('\'')) else {
            self.pay(self.rest().len())?;
            return wrong(open, "the quote `'` is not closed", QUOTE_HINT);
        };
        self.go_to(open + length + 2)
    }

    fn double_quoted(&mut self) -> Read<()> {
        let open = self.at;
        self.advance(1)?;
        loop {
            match self.byte() {
                None => return wrong(open, "the quote `\"` is not closed", QUOTE_HINT),
                Some(b'"') => return self.advance(1),
                Some(b'\\') => self.advance(2)?,
                Some(b'$') => self.expansion(true)?,
                Some(b'`') => self.backquoted(true)?,
                Some(_) => self.ordinary()?,
            }
        }
    }

    /// Reads `$'…'`.
    fn escaped_quoted(&mut self) -> Read<()> {
        let open = self.at;
        self.advance(2)?;
        loop {
            match self.byte() {
                None => return wrong(open, "the quote `$'` is not closed", QUOTE_HINT),
                Some(b'\'') => return self.advance(1),
                Some(b'\\') => self.advance(2)?,
                Some(_) => self.advance(1)?,
            }
        }
    }

    /// Reads what a `$` begins; `quoted` within double quotes.
    pub(super) fn expansion(&mut self, quoted: bool) -> Read<()> {
        let rest = self.rest();
        if rest.starts_with("$((") && self.attempt(|scanner| scanner.nested(Self::arithmetic))?.is_some() {
            return Ok(());
        }
        if rest.starts_with("$(") {
            return self.command_substitution(2);
        }
        if rest.starts_with("${{") {
            // A reference that was left as it is, which is no mistake of the script.
            match rest.find("}}") {
                Some(length) => return self.go_to(self.at + length + 2),
                None => self.pay(rest.len())?,
            }
        }
        if rest.starts_with("${") {
            return self.nested(|scanner| scanner.parameter(quoted));
        }
        if rest.starts_with("$'") && !quoted && self.is_bash() {
            return self.escaped_quoted();
        }
        if rest.starts_with("$[") && self.is_bash() {
            // An old form of arithmetic; without its end it is text.
            if self.attempt(|scanner| scanner.nested(Self::bracketed))?.is_some() {
                return Ok(());
            }
        }
        self.advance(1)
    }

    fn bracketed(&mut self) -> Read<()> {
        let open = self.at;
        self.advance(2)?;
        let mut depth = 1_usize;
        loop {
            match self.byte() {
                None | Some(b'\n') => {
                    return wrong(open, "the `$[` is not closed", "write `]` where it ends");
                }
                Some(b'[') => depth += 1,
                Some(b']') => depth -= 1,
                Some(b'$' | b'`' | b'"') => {
                    self.quoted_part()?;
                    continue;
                }
                Some(_) => {}
            }
            self.advance(1)?;
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Reads `$((…))` or `((…))`.
    pub(super) fn arithmetic(&mut self) -> Read<()> {
        let open = self.at;
        let begin = if self.byte() == Some(b'$') { 3 } else { 2 };
        self.advance(begin)?;
        let mut depth = 0_usize;
        loop {
            match self.byte() {
                None => return wrong(open, "the arithmetic is not closed", "write `))` where it ends"),
                Some(b'(') => {
                    depth += 1;
                    self.advance(1)?;
                }
                Some(b')') if depth > 0 => {
                    depth -= 1;
                    self.advance(1)?;
                }
                Some(b')') if self.rest().starts_with("))") => return self.advance(2),
                Some(b')') => {
                    return wrong(open, "the arithmetic ends with one `)`", "write `))` where it ends");
                }
                Some(b'\\') => self.advance(2)?,
                Some(b'"' | b'$' | b'`') => self.quoted_part()?,
                Some(_) => self.advance(1)?,
            }
        }
    }

    /// Reads `${…}`.
    fn parameter(&mut self, quoted: bool) -> Read<()> {
        let open = self.at;
        self.advance(2)?;
        let body = self.rest();
        let body = body.strip_prefix(['#', '!']).unwrap_or(body);
        let name = body.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let name = if name.len() == body.len() {
            name.strip_prefix(['@', '*', '?', '-', '$']).unwrap_or(name)
        } else {
            name
        };
        // Within double quotes a single quote is a character, but for patterns, of which bash has more.
        let is_pattern =
            name.starts_with(['#', '%']) || self.is_bash() && name.starts_with(['/', '^', ',', '[']);
        loop {
            match self.byte() {
                None => {
                    let hint = "write `}` where it ends; `$` as a character needs `\\` before it";
                    return wrong(open, "the `${` is not closed", hint);
                }
                Some(b'}') => return self.advance(1),
                Some(b'\\') => self.advance(2)?,
                Some(b'\'') if quoted && !is_pattern => self.advance(1)?,
                Some(b'\'') => self.single_quoted()?,
                Some(b'"') => self.nested(Self::double_quoted)?,
                Some(b'$') => self.expansion(quoted)?,
                Some(b'`') => self.backquoted(quoted)?,
                Some(_) => self.advance(1)?,
            }
        }
    }

    /// Reads `$(…)`, `<(…)` or `>(…)`, which begins with `begin` bytes.
    fn command_substitution(&mut self, begin: usize) -> Read<()> {
        let open = self.at;
        let outer = std::mem::take(&mut self.here_documents);
        let in_arguments = std::mem::replace(&mut self.in_arguments, false);
        let in_duplication = std::mem::replace(&mut self.in_duplication, false);
        self.advance(begin)?;
        self.substitutions += 1;
        let list = self.nested(Self::list);
        self.substitutions -= 1;
        list?;
        let end = self.take()?;
        match end.token {
            Token::Operator(")") => {}
            _ => return self.open_parenthesis(open, begin, end),
        }
        let left = std::mem::replace(&mut self.here_documents, outer);
        self.here_documents.extend(left.into_iter().map(|mut document| {
            document.left_over = true;
            document
        }));
        (self.in_arguments, self.in_duplication) = (in_arguments, in_duplication);
        Ok(())
    }

    /// Reads `` `…` ``.
    pub(super) fn backquoted(&mut self, quoted: bool) -> Read<()> {
        let open = self.at;
        self.advance(1)?;
        let mut inner = String::new();
        loop {
            let rest = self.rest();
            let Some(c) = rest.chars().next() else {
                let hint = "write the same sign where the command ends, or use `$(…)`";
                return wrong(open, "the backquote is not closed", hint);
            };
            self.advance(1)?;
            match (c, rest.chars().nth(1)) {
                ('`', _) => break,
                ('\\', Some(next)) => {
                    if !(matches!(next, '`' | '\\' | '$') || quoted && next == '"') {
                        inner.push('\\');
                    }
                    inner.push(next);
                    self.advance(1)?;
                }
                _ => inner.push(c),
            }
        }
        self.nested(|scanner| {
            let mut within = Scanner::new(&inner, scanner.dialect);
            within.lines_before = scanner.lines_to(open)?;
            within.depth = scanner.depth;
            within.steps_left = scanner.steps_left;
            let read = within.script();
            scanner.steps_left = within.steps_left;
            read.map_err(|stop| stop.within(scanner.text, open, &inner))
        })
    }

    /// Takes the word behind `<<` and expects its text from the next line on.
    pub(super) fn here_document(&mut self, word: Placed, strips_tabs: bool) -> Read<()> {
        let written = self.text.get(word.start..word.end).unwrap_or_default();
        let quoted = written.contains(['\'', '"', '\\']);
        let mut delimiter = String::with_capacity(written.len());
        let mut quote = None;
        let mut characters = written.chars().peekable();
        while let Some(c) = characters.next() {
            match (c, quote) {
                // bash takes the `$` before a quote as a part of the quote.
                ('$', None) if self.is_bash() && matches!(characters.peek(), Some('\'' | '"')) => {
                    quote = characters.next().map(|open| if open == '\'' { '$' } else { open });
                }
                ('\\', Some('$')) => match characters.next() {
                    Some(escaped @ ('\'' | '"' | '\\' | '?')) => delimiter.push(escaped),
                    _ => return Err(Stop::Undecided),
                },
                ('\'', Some('$')) => quote = None,
                ('\\', Some('"')) if !matches!(characters.peek(), Some('$' | '`' | '"' | '\\' | '\n')) => {
                    delimiter.push(c);
                }
                ('\\', None | Some('"')) => delimiter.extend(characters.next().filter(|c| *c != '\n')),
                ('\'' | '"', None) => quote = Some(c),
                (c, Some(open)) if c == open => quote = None,
                (c, _) => delimiter.push(c),
            }
        }
        if self.text.as_bytes().get(word.end) == Some(&b'\r') {
            // A blank for this reader, a character of the word for shells.
            delimiter.push('\r');
        }
        let at = word.start;
        self.here_documents.push(HereDocument { delimiter, at, strips_tabs, quoted, left_over: false });
        Ok(())
    }

    /// Passes over the texts of the here-documents that the line before began.
    fn read_here_documents(&mut self) -> Read<()> {
        for document in std::mem::take(&mut self.here_documents) {
            match self.end_of(&document)? {
                Some(end) => self.go_to(end)?,
                None if document.left_over => {}
                None => {
                    self.pay(self.rest().len())?;
                    let name = document.delimiter.trim();
                    let is_like = |line: &str| line.len() > name.len() && line.trim() == name;
                    let like = self.rest().lines().position(is_like);
                    if let Some(index) = like.filter(|_| !name.is_empty()) {
                        let line = self.line_of(self.at) + index;
                        let message = format!("the here-document `{name}` is not closed");
                        let hint = format!(
                            "line {line} of the script has blanks around `{name}`, where nothing else may stand"
                        );
                        return wrong(document.at, message, hint);
                    }
                    self.go_to(self.text.len())?;
                    self.endless.get_or_insert(document);
                }
            }
        }
        Ok(())
    }

    /// Where the text of a here-document ends, the line of its delimiter included.
    fn end_of(&mut self, document: &HereDocument) -> Read<Option<usize>> {
        let delimiter = document.delimiter.as_str();
        let mut at = self.at;
        // How much of the delimiter the lines have that backslashes join to the next one, when they have nothing else.
        let mut before = Some(0);
        let mut joined = false;
        let mut in_parentheses = None;
        for line in self.rest().split_inclusive('\n') {
            self.pay(line.len())?;
            let begin = at;
            at += line.len();
            let content = line.strip_suffix('\n').unwrap_or(line);
            let strips_tabs = document.strips_tabs && !joined;
            let stripped = if strips_tabs { content.trim_start_matches('\t') } else { content };
            // Of a substitution that ends on the delimiter's line shells take the delimiter all the same.
            let behind = stripped.strip_prefix(delimiter).filter(|_| self.substitutions > 0);
            if in_parentheses.is_none() && behind.is_some_and(|rest| rest.trim_start().starts_with(')')) {
                in_parentheses = Some(begin + content.len() - stripped.len() + delimiter.len());
            }
            let backslashes = content.len() - content.trim_end_matches('\\').len();
            joined = !document.quoted && backslashes % 2 == 1;
            let own = if joined { stripped.strip_suffix('\\').unwrap_or(stripped) } else { stripped };
            let left =
                before.and_then(|length| delimiter.get(length..)).and_then(|left| left.strip_prefix(own));
            match left {
                Some("") if !joined => return Ok(Some(at)),
                // dash and busybox join only empty lines here.
                Some(left) if joined && (self.is_bash() || content == "\\") => {
                    before = Some(delimiter.len() - left.len());
                }
                _ => before = if joined { None } else { Some(0) },
            }
        }
        Ok(in_parentheses)
    }
}
