//! From a template's text to what it does.

use melange_remote_sdk::error::Result;

use super::{DEPTH_MAX, Value, wrong};

pub(super) enum Node {
    Text(String),
    Show(Pipeline),
    If(Pipeline, Vec<Node>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
    Range(Pipeline, Vec<Node>, Vec<Node>),
    Break,
    Continue,
}

/// Commands, each of which gets the value of the one before as its last argument.
pub(super) struct Pipeline {
    pub(super) at: usize,
    /// The variables that get its value.
    pub(super) variables: Vec<String>,
    /// Whether they are new.
    pub(super) declares: bool,
    pub(super) commands: Vec<Vec<Operand>>,
}

pub(super) struct Operand {
    pub(super) at: usize,
    pub(super) base: Base,
    pub(super) fields: Vec<String>,
}

pub(super) enum Base {
    Constant(Value),
    Dot,
    Variable(String),
    Function(String),
    Parenthesis(Box<Pipeline>),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// A word: a keyword or a function.
    Word(String),
    /// `.` and the names behind it, none for the present value.
    Fields(Vec<String>),
    /// The name without its `$`.
    Variable(String),
    Constant(Constant),
    Sign(&'static str),
}

#[derive(Debug, Clone, PartialEq)]
enum Constant {
    Text(String),
    Number(i64),
    Decimal(f64),
}

const KEYWORDS: [&str; 11] =
    ["if", "else", "end", "range", "with", "break", "continue", "define", "template", "block", "nil"];

/// Reads a template.
pub(super) fn parse(template: &str) -> Result<Vec<Node>> {
    let mut parser = Parser { template, at: 0, trim: false, loops: 0 };
    let (nodes, end) = parser.block(0)?;
    match end {
        Some(End { word, at, .. }) => Err(wrong(template, at, format!("`{word}` has no beginning"))),
        None => Ok(nodes),
    }
}

struct Parser<'t> {
    template: &'t str,
    at: usize,
    /// Whether white space at the next text's beginning is left out.
    trim: bool,
    /// How many loops are open.
    loops: usize,
}

/// `end`, or `else` with what stands behind it.
struct End {
    word: String,
    at: usize,
    rest: Vec<(usize, Token)>,
}

impl Parser<'_> {
    fn wrong<T>(&self, at: usize, message: impl std::fmt::Display) -> Result<T> {
        Err(wrong(self.template, at, message))
    }

    /// Nodes up to `end` or `else`.
    fn block(&mut self, depth: usize) -> Result<(Vec<Node>, Option<End>)> {
        if depth > DEPTH_MAX {
            return self.wrong(self.at, format!("blocks deeper than {DEPTH_MAX}"));
        }
        let mut nodes = Vec::new();
        loop {
            let rest = self.template.get(self.at..).unwrap_or_default();
            let Some(open) = rest.find("{{") else {
                self.text(&mut nodes, rest, false);
                self.at = self.template.len();
                return Ok((nodes, None));
            };
            let begin = self.at + open;
            let inner = rest.get(open + 2..).unwrap_or_default();
            let trims = inner.starts_with('-') && inner[1..].starts_with(char::is_whitespace);
            self.text(&mut nodes, rest.get(..open).unwrap_or_default(), trims);
            self.at = begin + 2 + usize::from(trims);
            if self.comment(begin)? {
                continue;
            }
            let tokens = self.tokens(begin)?;
            let word = match tokens.first() {
                Some((_, Token::Word(word))) => word.clone(),
                _ => String::new(),
            };
            let behind = || tokens.get(1..).unwrap_or_default().to_vec();
            match word.as_str() {
                "end" | "else" => return Ok((nodes, Some(End { word, at: begin, rest: behind() }))),
                "if" | "with" | "range" => nodes.push(self.branches(&word, begin, &behind(), depth)?),
                "break" | "continue" if tokens.len() == 1 => {
                    if self.loops == 0 {
                        return self.wrong(begin, format!("`{word}` outside of a `range`"));
                    }
                    nodes.push(if word == "break" { Node::Break } else { Node::Continue });
                }
                "define" | "template" | "block" => {
                    return self
                        .wrong(begin, format!("`{word}` is for templates in files; this is one template"));
                }
                _ => nodes.push(Node::Show(self.pipeline(begin, &tokens, depth)?)),
            }
        }
    }

    /// Passes over a comment behind `{{` when there is one.
    fn comment(&mut self, begin: usize) -> Result<bool> {
        let rest = self.template.get(self.at..).unwrap_or_default();
        let blanks = rest.len() - rest.trim_start().len();
        let Some(body) = rest.trim_start().strip_prefix("/*") else { return Ok(false) };
        let Some(length) = body.find("*/") else { return self.wrong(begin, "the comment is not closed") };
        self.at += blanks + 2 + length + 2;
        let rest = self.template.get(self.at..).unwrap_or_default();
        let after = rest.trim_start();
        if let Some(end) = after.strip_prefix("-}}").filter(|_| after.len() < rest.len()) {
            self.trim = true;
            self.at = self.template.len() - end.len();
        } else if let Some(end) = rest.strip_prefix("}}") {
            self.at = self.template.len() - end.len();
        } else {
            return self.wrong(begin, "only `}}` may follow a comment");
        }
        Ok(true)
    }

    fn branches(&mut self, word: &str, begin: usize, rest: &[(usize, Token)], depth: usize) -> Result<Node> {
        let pipeline = self.pipeline(begin, rest, depth)?;
        if pipeline.variables.len() > 1 && word != "range" {
            return self.wrong(begin, "two variables are for `range`");
        }
        let is_loop = usize::from(word == "range");
        self.loops += is_loop;
        let (then, end) = self.block(depth + 1)?;
        self.loops -= is_loop;
        let otherwise = match end {
            Some(End { word, rest, .. }) if word == "else" && rest.is_empty() => {
                let (otherwise, end) = self.block(depth + 1)?;
                match end {
                    Some(End { word, .. }) if word == "end" => otherwise,
                    _ => return self.wrong(begin, "this block has no `{{end}}`"),
                }
            }
            Some(End { word: end, at, rest }) if end == "else" => match rest.first() {
                // The `end` of the inner block is that of the outer one too.
                Some((_, Token::Word(inner)))
                    if matches!(inner.as_str(), "if" | "with") && word != "range" =>
                {
                    vec![self.branches(inner, at, rest.get(1..).unwrap_or_default(), depth + 1)?]
                }
                _ => return self.wrong(at, "`else` is followed by something that cannot follow it"),
            },
            Some(_) => Vec::new(),
            None => return self.wrong(begin, "this block has no `{{end}}`"),
        };
        Ok(match word {
            "if" => Node::If(pipeline, then, otherwise),
            "with" => Node::With(pipeline, then, otherwise),
            _ => Node::Range(pipeline, then, otherwise),
        })
    }

    fn text(&mut self, nodes: &mut Vec<Node>, text: &str, trim_end: bool) {
        let text = if self.trim { text.trim_start() } else { text };
        let text = if trim_end { text.trim_end() } else { text };
        self.trim = false;
        if !text.is_empty() {
            nodes.push(Node::Text(text.to_owned()));
        }
    }

    /// The tokens up to `}}`.
    fn tokens(&mut self, begin: usize) -> Result<Vec<(usize, Token)>> {
        let mut tokens = Vec::new();
        loop {
            let rest = self.template.get(self.at..).unwrap_or_default();
            let blanks = rest.len() - rest.trim_start().len();
            let text = rest.trim_start();
            if let Some(end) = text.strip_prefix("-}}").filter(|_| blanks > 0) {
                self.trim = true;
                self.at = self.template.len() - end.len();
                return Ok(tokens);
            }
            if let Some(end) = text.strip_prefix("}}") {
                self.at = self.template.len() - end.len();
                return Ok(tokens);
            }
            self.at += blanks;
            let Some(first) = text.chars().next() else {
                return self.wrong(begin, "`{{` is not closed");
            };
            // A field right behind a parenthesis is one of its value.
            let joined = blanks == 0 && tokens.last().is_some_and(|(_, token)| *token == Token::Sign(")"));
            let at = self.at;
            let token = self.one_token(first, text)?;
            if joined && matches!(token, Token::Fields(_)) {
                tokens.push((at, Token::Sign("join")));
            }
            tokens.push((at, token));
        }
    }

    fn one_token(&mut self, first: char, text: &str) -> Result<Token> {
        let at = self.at;
        let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
        let word = |text: &str| -> usize { text.find(|c: char| !is_name(c)).unwrap_or(text.len()) };
        let (length, token) = match first {
            '(' => (1, Token::Sign("(")),
            ')' => (1, Token::Sign(")")),
            '|' => (1, Token::Sign("|")),
            ',' => (1, Token::Sign(",")),
            '=' => (1, Token::Sign("=")),
            ':' if text.starts_with(":=") => (2, Token::Sign(":=")),
            '`' => match text.get(1..).and_then(|rest| rest.find('`')) {
                Some(end) => (end + 2, Token::Constant(Constant::Text(text[1..=end].to_owned()))),
                None => return self.wrong(at, "the text is not closed"),
            },
            '"' | '\'' => self.quoted(first, text)?,
            '$' => {
                let length = word(text.get(1..).unwrap_or_default());
                (1 + length, Token::Variable(text[1..=length].to_owned()))
            }
            '.' if !text[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                let (length, names) = fields(text, word);
                if !names.is_empty() && text[..length].ends_with('.') {
                    return self.wrong(at, format!("a name is missing behind `{}`", &text[..length]));
                }
                (length, Token::Fields(names))
            }
            c if c.is_ascii_digit() || matches!(c, '-' | '+' | '.') => {
                let length = 1 + text[1..]
                    .find(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '_')))
                    .unwrap_or(text.len() - 1);
                match number(&text[..length]) {
                    Some(constant) => (length, Token::Constant(constant)),
                    None => return self.wrong(at, format!("`{}` is no number", &text[..length])),
                }
            }
            c if c.is_alphabetic() || c == '_' => {
                let length = word(text);
                (length, Token::Word(text[..length].to_owned()))
            }
            _ => return self.wrong(at, format!("`{first}` is not understood")),
        };
        self.at += length;
        // A variable's fields are part of it.
        Ok(token)
    }

    /// A text in double quotes, or the number of a character in single ones.
    fn quoted(&self, quote: char, text: &str) -> Result<(usize, Token)> {
        let mut escaped = false;
        for (index, c) in text.char_indices().skip(1) {
            match c {
                '\n' => break,
                '\\' if !escaped => escaped = true,
                c if c == quote && !escaped => {
                    let inner = &text[1..index];
                    let Some(content) = unescaped(inner) else {
                        return self.wrong(self.at, format!("{} is not a string constant", &text[..=index]));
                    };
                    let mut characters = content.chars();
                    return match (quote, characters.next(), characters.next()) {
                        ('"', ..) => Ok((index + 1, Token::Constant(Constant::Text(content)))),
                        (_, Some(c), None) => {
                            Ok((index + 1, Token::Constant(Constant::Number(i64::from(u32::from(c))))))
                        }
                        _ => self.wrong(self.at, format!("{} is not one character", &text[..=index])),
                    };
                }
                _ => escaped = false,
            }
        }
        self.wrong(self.at, "the text is not closed")
    }

    fn pipeline(&self, begin: usize, tokens: &[(usize, Token)], depth: usize) -> Result<Pipeline> {
        if depth > DEPTH_MAX {
            return self.wrong(begin, format!("parentheses deeper than {DEPTH_MAX}"));
        }
        let (variables, declares, mut rest) = declaration(tokens);
        let mut commands = vec![Vec::new()];
        while let Some(((at, token), behind)) = rest.split_first() {
            rest = behind;
            let (base, mut names) = match token {
                Token::Sign("|") => {
                    commands.push(Vec::new());
                    continue;
                }
                Token::Sign("(") => {
                    let Some(length) = closing(rest) else {
                        return self.wrong(*at, "the `(` is not closed");
                    };
                    let inner = self.pipeline(*at, &rest[..length], depth + 1)?;
                    rest = &rest[length + 1..];
                    (Base::Parenthesis(Box::new(inner)), Vec::new())
                }
                Token::Sign(sign) => return self.wrong(*at, format!("`{sign}` cannot stand here")),
                Token::Fields(names) => (Base::Dot, names.clone()),
                Token::Variable(name) => (Base::Variable(name.clone()), Vec::new()),
                Token::Constant(constant) => (Base::Constant(constant.value()), Vec::new()),
                Token::Word(word) => (self.named(*at, word)?, Vec::new()),
            };
            match rest {
                [(_, Token::Sign("join")), (_, Token::Fields(more)), behind @ ..] => {
                    names.extend(more.iter().cloned());
                    rest = behind;
                }
                [(next, Token::Fields(more)), behind @ ..] => {
                    // `$x.Name` is one operand, `$x .Name` are two.
                    if let Token::Variable(name) = token
                        && *next == at + 1 + name.len()
                    {
                        names.extend(more.iter().cloned());
                        rest = behind;
                    }
                }
                _ => {}
            }
            if let Some(command) = commands.last_mut() {
                command.push(Operand { at: *at, base, fields: names });
            }
        }
        let is_nil = |operand: &Operand| matches!(operand.base, Base::Constant(Value::Nil));
        if commands.iter().any(|command| command.first().is_some_and(is_nil)) {
            return self.wrong(begin, "`nil` is a value to compare with, not one to show");
        }
        if commands.iter().any(Vec::is_empty) {
            return self.wrong(begin, "a value is missing");
        }
        Ok(Pipeline { at: begin, variables, declares, commands })
    }

    fn named(&self, at: usize, word: &str) -> Result<Base> {
        Ok(match word {
            "true" => Base::Constant(Value::Bool(true)),
            "false" => Base::Constant(Value::Bool(false)),
            "nil" => Base::Constant(Value::Nil),
            _ if KEYWORDS.contains(&word) => return self.wrong(at, format!("`{word}` cannot stand here")),
            _ if super::functions::is_known(word) => Base::Function(word.to_owned()),
            _ => {
                let known = super::functions::NAMES.join(", ");
                return self.wrong(at, format!("`{word}` is not understood; functions are {known}"));
            }
        })
    }
}

impl Constant {
    fn value(&self) -> Value {
        match self {
            Self::Text(text) => Value::text(text),
            Self::Number(number) => Value::Number(*number),
            Self::Decimal(number) => Value::Decimal(*number),
        }
    }
}

/// The variables in front of `:=` or `=`, whether they are new, and what is behind.
fn declaration(tokens: &[(usize, Token)]) -> (Vec<String>, bool, &[(usize, Token)]) {
    let names = |found: &[&String]| found.iter().map(|name| (*name).clone()).collect();
    match tokens {
        [(_, Token::Variable(a)), (_, Token::Sign(sign @ (":=" | "="))), rest @ ..] => {
            (names(&[a]), *sign == ":=", rest)
        }
        [
            (_, Token::Variable(a)),
            (_, Token::Sign(",")),
            (_, Token::Variable(b)),
            (_, Token::Sign(sign @ (":=" | "="))),
            rest @ ..,
        ] => (names(&[a, b]), *sign == ":=", rest),
        _ => (Vec::new(), false, tokens),
    }
}

/// How many tokens are before the parenthesis that closes.
fn closing(tokens: &[(usize, Token)]) -> Option<usize> {
    let mut depth = 0_usize;
    tokens.iter().position(|(_, token)| {
        match token {
            Token::Sign("(") => depth += 1,
            Token::Sign(")") if depth == 0 => return true,
            Token::Sign(")") => depth -= 1,
            _ => {}
        }
        false
    })
}

/// The names of `.A.B`, and how long they are.
fn fields(text: &str, word: impl Fn(&str) -> usize) -> (usize, Vec<String>) {
    let (mut length, mut names) = (0, Vec::new());
    while let Some(rest) = text.get(length..).and_then(|rest| rest.strip_prefix('.')) {
        let name = word(rest);
        length += 1 + name;
        if name == 0 {
            break;
        }
        names.push(rest[..name].to_owned());
    }
    (length, names)
}

fn number(text: &str) -> Option<Constant> {
    let plain = text.replace('_', "");
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    for (prefix, radix) in [("0x", 16), ("0X", 16), ("0b", 2), ("0o", 8)] {
        if let Some(digits) = digits.strip_prefix(prefix) {
            return Some(Constant::Number(sign * i64::from_str_radix(digits, radix).ok()?));
        }
    }
    let whole = plain.parse().ok().map(Constant::Number);
    whole.or_else(|| plain.parse().ok().filter(|n: &f64| n.is_finite()).map(Constant::Decimal))
}

/// A text with its escapes replaced.
fn unescaped(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let code = |characters: &mut std::str::Chars<'_>, digits: usize| -> Option<char> {
            let hex: String = characters.by_ref().take(digits).collect();
            (hex.len() == digits).then(|| u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32))?
        };
        out.push(match characters.next()? {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'v' => '\u{b}',
            c @ ('\\' | '"' | '\'') => c,
            'x' => code(&mut characters, 2)?,
            'u' => code(&mut characters, 4)?,
            'U' => code(&mut characters, 8)?,
            _ => return None,
        });
    }
    Some(out)
}
