//! The extent of operands, and what is put around them.

use crate::operators::tokens::{Kind, Token};

/// Name of the function that makes an operand one that the engine can calculate with.
pub(crate) const COUNTED: &str = "__counted";

/// Name of the function that makes an operand one that is compared by its digits.
pub(crate) const COMPARED: &str = "__compared";

/// Name of the function that makes an operand one that is searched by the digits of what is in it.
pub(crate) const SEARCHED: &str = "__searched";

/// Name of the function that makes a number of a text: the engine would round what is written.
pub(crate) const WRITTEN: &str = "__written";

/// Deepest nesting that is read. The engine refuses less.
const MAX_DEPTH: usize = 400;

/// Words that begin no operand.
const WORDS: [&str; 6] = ["if", "else", "in", "is", "and", "or"];

/// The name of a filter or a test in a template.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) name: String,
    /// True for a filter.
    pub(crate) is_filter: bool,
    pub(crate) line: usize,
}

/// Reads expressions as the engine's parser does, as far as the extent of operands goes.
pub(super) struct Reader<'s> {
    pub(super) source: &'s str,
    pub(super) tokens: &'s [Token],
    pub(super) at: usize,
    pub(super) depth: usize,
    /// The line in which `source` begins.
    pub(super) line: usize,
    /// The filters and tests that were read.
    pub(super) names: &'s mut Vec<Named>,
}

/// An operand as it was read.
struct Operand {
    text: String,
    /// The kind of its only token, if it has no others.
    only: Option<Kind>,
}

impl Reader<'_> {
    fn peek(&self) -> &str {
        self.tokens
            .get(self.at)
            .map_or("", |token| &self.source[token.start..token.end])
    }

    fn kind(&self) -> Option<Kind> {
        self.tokens.get(self.at).map(|token| token.kind)
    }

    /// Whether a word or a sign is next, and no text that reads like it.
    fn is_next(&self, one_of: &[&str]) -> bool {
        self.kind() != Some(Kind::Text) && one_of.contains(&self.peek())
    }

    /// The next token with the space before it.
    pub(super) fn take(&mut self) -> String {
        let Some(token) = self.tokens.get(self.at) else {
            return String::new();
        };
        let before = self
            .at
            .checked_sub(1)
            .map_or(0, |before| self.tokens[before].end);
        self.at += 1;
        self.source[before..token.end].to_owned()
    }

    /// The word of a statement, and what it names before its first expression.
    pub(super) fn keyword(&mut self) -> String {
        let is_loop = self.is_next(&["for"]);
        let is_filter = self.is_next(&["filter"]);
        let mut taken = self.take();
        if is_filter {
            taken.push_str(&self.name(true));
        }
        while is_loop && self.at < self.tokens.len() {
            let is_in = self.is_next(&["in"]);
            taken.push_str(&self.take());
            if is_in {
                break;
            }
        }
        taken
    }

    /// Expressions, and what stands between them, up to a closing bracket.
    pub(super) fn sequence(&mut self) -> Option<String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let mut read = String::new();
        while self.at < self.tokens.len() && !self.is_next(&[")", "]", "}"]) {
            let part = match self.begins_operand() {
                true => self.choice()?,
                false => self.take(),
            };
            read.push_str(&part);
        }
        self.depth -= 1;
        Some(read)
    }

    fn begins_operand(&self) -> bool {
        match self.kind() {
            Some(Kind::Word) => !WORDS.contains(&self.peek()),
            Some(Kind::Sign) => ["(", "[", "{", "-"].contains(&self.peek()),
            kind => kind.is_some(),
        }
    }

    /// `a if b else c`
    fn choice(&mut self) -> Option<String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let mut read = self.logic()?;
        while self.is_next(&["if"]) {
            read.push_str(&self.take());
            read.push_str(&self.logic()?);
            if self.is_next(&["else"]) {
                read.push_str(&self.take());
                read.push_str(&self.choice()?);
            }
        }
        self.depth -= 1;
        Some(read)
    }

    /// `a and not b or c`: these only ask whether a value is true.
    fn logic(&mut self) -> Option<String> {
        let mut read = String::new();
        loop {
            while self.is_next(&["not"]) {
                read.push_str(&self.take());
            }
            read.push_str(&self.comparison()?.text);
            if !self.is_next(&["and", "or"]) {
                return Some(read);
            }
            read.push_str(&self.take());
        }
    }

    fn comparison(&mut self) -> Option<Operand> {
        let first = self.binary(0)?;
        let mut others = Vec::new();
        while self.is_next(&["==", "!=", "<", "<=", ">", ">=", "in", "not"]) {
            let is_not = self.is_next(&["not"]);
            let mut operator = self.take();
            if is_not {
                operator.push_str(&self.take());
            }
            others.push((operator, self.binary(0)?));
        }
        if others.is_empty() {
            return Some(first);
        }
        let mut text = compared(&first);
        for (operator, operand) in others {
            let made = match operator.ends_with("in") {
                true => searched(&operand),
                false => compared(&operand),
            };
            text.push_str(&operator);
            text.push_str(&made);
        }
        Some(Operand { text, only: None })
    }

    /// The operators between two values, the weakest first.
    fn binary(&mut self, level: usize) -> Option<Operand> {
        const LEVELS: [&[&str]; 4] = [&["+", "-"], &["~"], &["*", "/", "//", "%"], &["**"]];
        let Some(operators) = LEVELS.get(level) else {
            return self.unary();
        };
        let first = self.binary(level + 1)?;
        if !self.is_next(operators) {
            return Some(first);
        }
        // What texts are joined of is only written.
        let as_operand = |operand: &Operand| match *operators == ["~"] {
            true => operand.text.clone(),
            false => counted(operand),
        };
        let mut text = as_operand(&first);
        while self.is_next(operators) {
            text.push_str(&self.take());
            text.push_str(&as_operand(&self.binary(level + 1)?));
        }
        Some(Operand { text, only: None })
    }

    /// A value with its signs, fields, calls, filters and tests.
    fn unary(&mut self) -> Option<Operand> {
        let mut operand = self.signed()?;
        loop {
            if self.is_next(&["|"]) {
                operand.text.push_str(&self.take());
                operand.text.push_str(&self.name(true));
                operand.text.push_str(&self.arguments()?);
            } else if self.is_next(&["is"]) {
                operand.text.push_str(&self.take());
                if self.is_next(&["not"]) {
                    operand.text.push_str(&self.take());
                }
                operand.text.push_str(&self.name(false));
                if self.is_next(&["("]) {
                    operand.text.push_str(&self.arguments()?);
                } else if self.begins_argument() {
                    operand.text.push_str(&self.signed()?.text);
                }
            } else {
                return Some(operand);
            }
            operand.only = None;
        }
    }

    /// Whether the argument of a test stands here without brackets.
    fn begins_argument(&self) -> bool {
        match self.kind() {
            Some(Kind::Word) => !["and", "or", "else", "is"].contains(&self.peek()),
            Some(Kind::Sign) => ["[", "{", "-"].contains(&self.peek()),
            kind => kind.is_some(),
        }
    }

    /// The name of a filter or a test, which may have points.
    fn name(&mut self, is_filter: bool) -> String {
        let start = self.tokens.get(self.at).map_or(0, |token| token.start);
        let before = self.source.get(..start).unwrap_or_default();
        let line = self.line + before.matches('\n').count();
        let mut name = self.take();
        while self.is_next(&["."]) {
            name.push_str(&self.take());
            name.push_str(&self.take());
        }
        self.names.push(Named {
            name: name.trim().to_owned(),
            is_filter,
            line,
        });
        name
    }

    fn signed(&mut self) -> Option<Operand> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let operand = match self.is_next(&["-"]) {
            true => {
                let sign = self.take();
                let operand = self.signed()?;
                let is_literal = operand.only == Some(Kind::Fraction)
                    && operand.text.starts_with(|c: char| c.is_ascii_digit());
                Operand {
                    text: sign + &counted(&operand),
                    only: is_literal.then_some(Kind::Fraction),
                }
            }
            false => self.value()?,
        };
        self.depth -= 1;
        Some(operand)
    }

    /// A value with its fields and calls.
    fn value(&mut self) -> Option<Operand> {
        let start = self.at;
        let kind = self.kind();
        let mut text = match self.is_next(&["(", "[", "{"]) {
            true => self.bracketed()?,
            false => self.take(),
        };
        while kind == Some(Kind::Text) && self.kind() == Some(Kind::Text) {
            text.push_str(&self.take());
        }
        loop {
            if self.is_next(&["."]) {
                text.push_str(&self.take());
                text.push_str(&self.take());
            } else if self.is_next(&["[", "("]) {
                text.push_str(&self.bracketed()?);
            } else {
                let only = kind.filter(|_| self.at == start + 1);
                return Some(Operand { text, only });
            }
        }
    }

    fn arguments(&mut self) -> Option<String> {
        match self.is_next(&["("]) {
            true => self.bracketed(),
            false => Some(String::new()),
        }
    }

    fn bracketed(&mut self) -> Option<String> {
        let mut read = self.take();
        read.push_str(&self.sequence()?);
        read.push_str(&self.take());
        Some(read)
    }
}

fn called(function: &str, operand: &str) -> String {
    let value = operand.trim_start();
    let space = &operand[..operand.len() - value.len()];
    format!("{space}{function}({value})")
}

fn counted(operand: &Operand) -> String {
    match operand.only {
        Some(Kind::Whole | Kind::Fraction | Kind::Text) => operand.text.clone(),
        _ => called(COUNTED, &operand.text),
    }
}

fn searched(operand: &Operand) -> String {
    match operand.only {
        Some(Kind::Text) => operand.text.clone(),
        _ => called(SEARCHED, &operand.text),
    }
}

fn compared(operand: &Operand) -> String {
    match operand.only {
        Some(Kind::Fraction) => {
            let value = operand.text.trim_start();
            let space = &operand.text[..operand.text.len() - value.len()];
            format!("{space}{WRITTEN}('{}')", json_number(value))
        }
        _ => called(COMPARED, &operand.text),
    }
}

/// Writes a fraction as JSON has it: the engine's may begin with more zeros, and need no digits
/// after the point.
fn json_number(literal: &str) -> String {
    let literal = literal.replace('_', "");
    let (sign, rest) = match literal.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", &*literal),
    };
    let exponent = rest.find(['e', 'E']).unwrap_or(rest.len());
    let (mantissa, exponent) = rest.split_at(exponent);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}{exponent}")
}
