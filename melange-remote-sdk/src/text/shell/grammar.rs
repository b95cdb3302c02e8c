//! From tokens to commands: which may follow which.

use super::{Placed, Read, Scanner, Stop, Token, wrong, wrong_everywhere};

/// Words that end a list of commands where a command may begin.
const CLOSING: [&str; 8] = ["then", "do", "done", "fi", "esac", "elif", "else", "}"];

/// What is open, and must be closed.
#[derive(Clone, Copy)]
struct Open {
    word: &'static str,
    at: usize,
}

impl Stop {
    /// The same seen from outside of the backquotes at `open` of `text` that hold `inner`.
    pub(super) fn within(self, text: &str, open: usize, inner: &str) -> Self {
        let Self::Wrong(mut wrong) = self else { return self };
        // Backslashes were taken away: lines are counted, and the first one's place is that of the quote.
        let lines = inner.get(..wrong.at).unwrap_or(inner).matches('\n').count();
        let mut at = open;
        for _ in 0..lines {
            let rest = text.get(at..).unwrap_or_default();
            at += rest.find('\n').map_or(0, |newline| newline + 1);
        }
        wrong.at = at;
        Self::Wrong(wrong)
    }
}

/// What opens the block that a closing word belongs to.
fn opener(word: &str) -> &'static str {
    match word {
        "then" | "elif" | "else" | "fi" => "if",
        "do" | "done" => "for`, `while` or `until",
        "esac" => "case",
        _ => "{",
    }
}

impl Scanner<'_> {
    /// Reads everything.
    pub(super) fn script(&mut self) -> Read<()> {
        let read = self.list().and_then(|_| {
            let end = self.take()?;
            if end.token == Token::End { Ok(()) } else { self.unexpected(end) }
        });
        let Err(Stop::Wrong(mut wrong)) = read else { return read };
        if let Some(document) = self.endless.take() {
            // What is missing is in its text.
            let name = document.delimiter.trim();
            wrong.at = document.at;
            wrong.message = format!("the here-document `{name}` is not closed");
            wrong.hint = format!("end it with a line that is `{name}` and nothing else");
        }
        Err(Stop::Wrong(wrong))
    }

    /// A token where none such may be.
    pub(super) fn unexpected<T>(&self, placed: Placed) -> Read<T> {
        let shown = self.shown(placed.start, placed.end);
        if let Some(word) = self.keyword(placed).filter(|word| CLOSING.contains(&word.as_str())) {
            let begin = opener(&word);
            return wrong(
                placed.start,
                format!("`{word}` without `{begin}` before it"),
                "remove it, or look for what ends too early above",
            );
        }
        match placed.token {
            Token::End => wrong(placed.start, "the script ends where a command must follow", "finish it"),
            Token::Newline => wrong(placed.start, "the line ends where a word must follow", "finish it"),
            Token::Operator("(" | ")") => wrong(
                placed.start,
                format!("`{shown}` where none can be"),
                format!("a character in a word is written `\\{shown}` or in quotes"),
            ),
            Token::Operator(_) => wrong(
                placed.start,
                format!("`{shown}` without a command before it"),
                "remove it, or write the command",
            ),
            _ => wrong(
                placed.start,
                format!("`{shown}` where a command must have ended"),
                "put `;` or a new line before it",
            ),
        }
    }

    /// Takes what stands where `!` negates nothing.
    fn take_argument(&mut self) -> Read<Placed> {
        self.in_arguments = true;
        let taken = self.take();
        self.in_arguments = false;
        taken
    }

    fn newlines(&mut self) -> Read<()> {
        while self.peek()?.token == Token::Newline {
            self.take()?;
        }
        Ok(())
    }

    /// Whether a list of commands ends here.
    fn is_end(&mut self) -> Read<bool> {
        let placed = self.peek()?;
        Ok(match placed.token {
            Token::End | Token::Operator(")" | ";;" | ";&" | ";;&") => true,
            _ => self.is_closing(placed),
        })
    }

    /// Reads commands up to what cannot begin one; how many.
    pub(super) fn list(&mut self) -> Read<usize> {
        let mut count = 0;
        loop {
            self.newlines()?;
            if self.is_end()? {
                return Ok(count);
            }
            self.and_or()?;
            count += 1;
            match self.peek()?.token {
                Token::Operator(";" | "&") | Token::Newline => {
                    self.take()?;
                }
                _ if self.is_end()? => return Ok(count),
                _ => {
                    let placed = self.peek()?;
                    return self.unexpected(placed);
                }
            }
        }
    }

    fn and_or(&mut self) -> Read<()> {
        self.pipeline()?;
        while let Token::Operator(sign @ ("&&" | "||")) = self.peek()?.token {
            self.behind(sign)?;
            self.pipeline()?;
        }
        Ok(())
    }

    /// Takes an operator that a command must follow.
    fn behind(&mut self, sign: &str) -> Read<()> {
        let at = self.take()?.start;
        self.newlines()?;
        if self.is_end()? {
            return wrong(at, format!("nothing follows `{sign}`"), "write the command, or remove the sign");
        }
        Ok(())
    }

    fn pipeline(&mut self) -> Read<()> {
        loop {
            let placed = self.peek()?;
            match self.keyword(placed).as_deref() {
                Some("!") => {
                    self.take()?;
                }
                Some("time") if self.is_bash() => {
                    self.take()?;
                    let option = self.peek()?;
                    if matches!(self.keyword(option).as_deref(), Some("-p" | "--")) {
                        self.take()?;
                    }
                }
                _ => break,
            }
            // bash takes both without a command.
            let next = self.peek()?.token;
            if self.is_bash()
                && (matches!(next, Token::Newline | Token::Operator(";" | "&")) || self.is_end()?)
            {
                return Ok(());
            }
        }
        self.command()?;
        while let Token::Operator(sign @ ("|" | "|&")) = self.peek()?.token {
            self.behind(sign)?;
            self.pipeline()?;
        }
        Ok(())
    }

    fn command(&mut self) -> Read<()> {
        self.nested(|scanner| {
            if scanner.compound()? {
                while matches!(scanner.peek()?.token, Token::Redirect(_)) {
                    scanner.redirect()?;
                }
                return Ok(());
            }
            scanner.simple()
        })
    }

    /// Reads a command that keywords or signs enclose; whether there was one.
    fn compound(&mut self) -> Read<bool> {
        let placed = self.peek()?;
        let at = placed.start;
        if placed.token == Token::Operator("(") {
            self.take()?;
            self.parenthesis(at)?;
            return Ok(true);
        }
        let Some(word) = self.keyword(placed) else { return Ok(false) };
        match word.as_str() {
            "{" => {
                self.take()?;
                self.body(Open { word: "{", at }, &["}"])?;
            }
            "if" => self.conditional_commands(at)?,
            "while" => self.looped("while", at)?,
            "until" => self.looped("until", at)?,
            "for" => self.counted("for", at)?,
            "select" if self.is_bash() => self.counted("select", at)?,
            "case" => self.case(at)?,
            "[[" if self.is_bash() => {
                self.take()?;
                self.test(at)?;
            }
            "in" => return wrong(at, "`in` without `for` or `case` before it", "write it behind their word"),
            "function" if self.is_bash() => self.function()?,
            "coproc" if self.is_bash() => self.coprocess()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Reads behind `(` at `open`: bash's arithmetic, or commands.
    fn parenthesis(&mut self, open: usize) -> Read<()> {
        if self.is_bash() && self.byte() == Some(b'(') {
            let arithmetic = self.attempt(|scanner| {
                scanner.at = open;
                scanner.arithmetic()
            })?;
            if arithmetic.is_some() {
                return Ok(());
            }
        }
        let count = self.list()?;
        let end = self.take()?;
        match end.token {
            Token::Operator(")") if count > 0 => Ok(()),
            Token::Operator(")") => wrong(end.start, "there is no command between `(` and `)`", "write one"),
            _ => self.open_parenthesis(open, 1, end),
        }
    }

    /// `end` stands where the parenthesis must be that closes what begins with `length` bytes at `open`.
    pub(super) fn open_parenthesis<T>(&self, open: usize, length: usize, end: Placed) -> Read<T> {
        let hint = "write `)` behind its last command";
        let sign = self.shown(open, open + length);
        match end.token {
            Token::End => wrong(open, format!("the `{sign}` is not closed"), hint),
            _ if self.is_closing(end) || matches!(end.token, Token::Operator(";;" | ";&" | ";;&")) => {
                let found = self.shown(end.start, end.end);
                let line = self.line_of(end.start);
                wrong(
                    open,
                    format!("the `{sign}` is not closed before the `{found}` in line {line} of the script"),
                    hint,
                )
            }
            _ => self.unexpected(end),
        }
    }

    /// Whether a token is a word that ends a list of commands.
    fn is_closing(&self, placed: Placed) -> bool {
        self.keyword(placed).is_some_and(|word| CLOSING.contains(&word.as_str()))
    }

    /// Reads the commands of a block up to one of `ends`, which is returned.
    fn body(&mut self, open: Open, ends: &[&'static str]) -> Read<&'static str> {
        let count = self.list()?;
        let end = self.take()?;
        let word = self.keyword(end);
        match ends.iter().find(|known| word.as_deref() == Some(known)) {
            Some(found) if count > 0 => Ok(found),
            Some(found) => wrong(
                end.start,
                format!("there is no command before `{found}`"),
                "write one; `:` is a command that does nothing",
            ),
            None => self.unclosed(open, ends, end),
        }
    }

    /// `end` stands where one of `ends` must be.
    fn unclosed<T>(&self, open: Open, ends: &[&'static str], end: Placed) -> Read<T> {
        if matches!(end.token, Token::Operator(";;" | ";&" | ";;&")) && open.word != "case" {
            // Inside of a branch of `case` the block is what is open.
            return self.missing(open, ends, Some(end));
        }
        match end.token {
            Token::End | Token::Operator(")") => self.missing(open, ends, None),
            _ if self.is_closing(end) => self.missing(open, ends, Some(end)),
            _ => self.unexpected(end),
        }
    }

    fn missing<T>(&self, open: Open, ends: &[&'static str], instead: Option<Placed>) -> Read<T> {
        let last = ends.last().copied().unwrap_or_default();
        let message = match instead {
            None => format!("the `{}` has no `{last}`", open.word),
            Some(found) => format!(
                "the `{}` has no `{last}` before the `{}` in line {} of the script",
                open.word,
                self.shown(found.start, found.end),
                self.line_of(found.start)
            ),
        };
        let hint = match last {
            "then" | "do" | "in" => format!("write `; {last}` or `{last}` on the next line"),
            _ => format!("write `{last}` as a command of its own where it ends"),
        };
        wrong(open.at, message, hint)
    }

    fn conditional_commands(&mut self, at: usize) -> Read<()> {
        let open = Open { word: "if", at };
        self.take()?;
        loop {
            self.body(open, &["then"])?;
            match self.body(open, &["elif", "else", "fi"])? {
                "elif" => {}
                "else" => {
                    self.body(open, &["fi"])?;
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
    }

    fn looped(&mut self, word: &'static str, at: usize) -> Read<()> {
        let open = Open { word, at };
        self.take()?;
        self.body(open, &["do"])?;
        self.body(open, &["done"])?;
        Ok(())
    }

    fn counted(&mut self, word: &'static str, at: usize) -> Read<()> {
        let open = Open { word, at };
        self.take()?;
        self.skip_blanks()?;
        if self.is_bash() && self.rest().starts_with("((") {
            self.arithmetic()?;
        } else {
            let name = self.take()?;
            if !matches!(name.token, Token::Word { .. }) {
                return wrong(at, format!("the `{word}` has no variable"), "write `for name in …; do`");
            }
            self.newlines()?;
            let next = self.peek()?;
            if self.keyword(next).as_deref() == Some("in") {
                self.take()?;
                self.values(open)?;
            }
        }
        if self.peek()?.token == Token::Operator(";") {
            self.take()?;
        }
        self.newlines()?;
        let next = self.take()?;
        match self.keyword(next).as_deref() {
            Some("do") => self.body(open, &["done"]).map(drop),
            Some("{") if self.is_bash() => self.body(open, &["}"]).map(drop),
            _ => self.missing(open, &["do"], None),
        }
    }

    /// Reads the words behind `in`, to the end of the line or the `;`.
    fn values(&mut self, open: Open) -> Read<()> {
        let mut last = None;
        loop {
            self.in_arguments = true;
            let placed = self.peek()?;
            self.in_arguments = false;
            match placed.token {
                Token::Word { .. } => {
                    last = Some(self.take()?);
                }
                Token::Newline | Token::Operator(";") => break,
                Token::End => return self.missing(open, &["do"], None),
                _ => {
                    let sign = self.shown(placed.start, placed.end);
                    let message = format!("`{sign}` among the values of the `{}`", open.word);
                    return wrong(placed.start, message, "put values with such characters in quotes");
                }
            }
        }
        let Some(last) = last.filter(|last| self.keyword(*last).as_deref() == Some("do")) else {
            return Ok(());
        };
        // It may be a value, when the real one follows.
        let token = self.peek()?.token;
        let next = self.rest().trim_start();
        self.pay(self.rest().len() - next.len())?;
        if token == Token::Newline && !next.starts_with("do") {
            let message = format!("the `do` of the `{}` is one of its values", open.word);
            return wrong(last.start, message, "put `;` before it");
        }
        Ok(())
    }

    fn case(&mut self, at: usize) -> Read<()> {
        let open = Open { word: "case", at };
        self.take()?;
        if !matches!(self.take()?.token, Token::Word { .. }) {
            return wrong(at, "the `case` has no word", "write `case \"$name\" in`");
        }
        self.newlines()?;
        let next = self.take()?;
        if self.keyword(next).as_deref() != Some("in") {
            return self.missing(open, &["in"], None);
        }
        loop {
            let mut first = self.take_argument()?;
            while first.token == Token::Newline {
                first = self.take_argument()?;
            }
            match first.token {
                Token::Word { .. } if self.keyword(first).as_deref() == Some("esac") => return Ok(()),
                Token::Word { .. } => self.patterns(open, first)?,
                Token::Operator("(") => {
                    let first = self.take_argument()?;
                    self.patterns(open, first)?;
                }
                Token::End => return self.missing(open, &["esac"], None),
                _ => return self.missing(open, &["esac"], Some(first)),
            }
            self.list()?;
            let end = self.take()?;
            match end.token {
                Token::Operator(";;" | ";&" | ";;&") => {}
                _ if self.keyword(end).as_deref() == Some("esac") => return Ok(()),
                _ => return self.unclosed(open, &["esac"], end),
            }
        }
    }

    /// Reads the patterns of a branch, of which `first` is taken, and the parenthesis behind them.
    fn patterns(&mut self, open: Open, first: Placed) -> Read<()> {
        let mut pattern = first;
        loop {
            if !matches!(pattern.token, Token::Word { .. }) {
                return self.no_pattern(open, first, pattern);
            }
            let next = self.take()?;
            match next.token {
                Token::Operator("|") => pattern = self.take_argument()?,
                Token::Operator(")") => return Ok(()),
                _ => return self.no_pattern(open, first, next),
            }
        }
    }

    fn no_pattern<T>(&self, open: Open, first: Placed, found: Placed) -> Read<T> {
        if found.token == Token::End || self.is_closing(first) {
            return self.missing(open, &["esac"], (found.token != Token::End).then_some(first));
        }
        let message = format!("the pattern `{}` has no `)` behind it", self.shown(first.start, first.end));
        let line = self.line_of(open.at);
        let hint = format!(
            "the `case` in line {line} of the script has branches of `pattern)`, commands and `;;`, and ends with `esac`"
        );
        wrong(first.start, message, hint)
    }

    /// Reads bash's `[[ … ]]` behind its first word.
    fn test(&mut self, open: usize) -> Read<()> {
        loop {
            self.skip_blanks()?;
            match self.byte() {
                Some(b'\n' | b'(' | b')' | b'<' | b'>') => self.advance(1)?,
                Some(b'&' | b'|') if self.rest().starts_with("&&") || self.rest().starts_with("||") => {
                    self.advance(2)?;
                }
                None | Some(b';' | b'&' | b'|') => {
                    let hint = "write `]]` behind a space where it ends";
                    return wrong_everywhere(open, "the `[[` is not closed", hint);
                }
                Some(_) => {
                    let start = self.at;
                    self.word()?;
                    match self.text.get(start..self.at) {
                        Some("]]") => return Ok(()),
                        Some("=~") => self.expression()?,
                        _ => {}
                    }
                }
            }
        }
    }

    /// Reads the regular expression behind `=~`, in which parentheses and what they hold are characters.
    fn expression(&mut self) -> Read<()> {
        self.skip_blanks()?;
        let mut depth = 0_usize;
        loop {
            match self.byte() {
                None | Some(b'\n') => return Ok(()),
                Some(b' ' | b'\t') if depth == 0 => return Ok(()),
                Some(b')') if depth == 0 => return Ok(()),
                Some(b'(') => {
                    depth += 1;
                    self.advance(1)?;
                }
                Some(b')') => {
                    depth -= 1;
                    self.advance(1)?;
                }
                Some(b'\\') => self.advance(2)?,
                Some(b'\'' | b'"' | b'$' | b'`') => self.nested(|scanner| scanner.quoted_part())?,
                Some(_) => self.advance(1)?,
            }
        }
    }

    /// Reads `function name { … }`.
    fn function(&mut self) -> Read<()> {
        let at = self.take()?.start;
        if !matches!(self.take()?.token, Token::Word { .. }) {
            return wrong(at, "the `function` has no name", "write `name() { … }`");
        }
        if self.peek()?.token == Token::Operator("(") {
            self.take()?;
            let end = self.take()?;
            if end.token != Token::Operator(")") {
                return self.unexpected(end);
            }
        }
        self.function_body(at)
    }

    fn function_body(&mut self, at: usize) -> Read<()> {
        self.newlines()?;
        if self.is_end()? {
            return wrong(at, "the function has no commands", "write `name() { … }`");
        }
        self.command()
    }

    /// Reads `coproc`, its name if it has one, and its command.
    fn coprocess(&mut self) -> Read<()> {
        self.take()?;
        let named = self.attempt(|scanner| {
            let name = scanner.take()?;
            if !matches!(name.token, Token::Word { plain: true }) || !scanner.compound()? {
                return wrong(name.start, "no name", "");
            }
            Ok(())
        })?;
        if named.is_none() {
            self.command()?;
        }
        Ok(())
    }

    /// Reads words and redirections.
    fn simple(&mut self) -> Read<()> {
        let mut words = 0_usize;
        let mut parts = 0_usize;
        loop {
            self.in_arguments = words > 0;
            let placed = self.peek()?;
            self.in_arguments = false;
            match placed.token {
                Token::Word { .. } => {
                    self.take()?;
                    words += 1;
                }
                Token::Redirect(_) => self.redirect()?,
                Token::Operator("(") if words == 1 && parts == 1 => {
                    self.take()?;
                    let end = self.take()?;
                    if end.token != Token::Operator(")") {
                        return self.unexpected(placed);
                    }
                    return self.function_body(placed.start);
                }
                _ if parts == 0 => return self.unexpected(placed),
                Token::Operator("(") => return self.unexpected(placed),
                _ => return Ok(()),
            }
            parts += 1;
        }
    }

    fn redirect(&mut self) -> Read<()> {
        let sign = self.take()?;
        self.in_duplication = matches!(sign.token, Token::Redirect(">&" | "<&"));
        let target = self.peek()?;
        self.in_duplication = false;
        if !matches!(target.token, Token::Word { .. }) {
            let shown = self.shown(sign.start, sign.end);
            return wrong(
                sign.start,
                format!("nothing follows `{shown}`"),
                "write the file's name behind it",
            );
        }
        self.take()?;
        match sign.token {
            Token::Redirect("<<") => self.here_document(target, false)?,
            Token::Redirect("<<-") => self.here_document(target, true)?,
            _ => {}
        }
        Ok(())
    }
}
