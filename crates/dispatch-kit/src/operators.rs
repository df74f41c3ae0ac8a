//! The operators of a template, made exact: the engine's own see numbers of 64 and 128 bits only.
//!
//! The engine has no way to give an operator a meaning of ours. So operands are passed through
//! functions: `a < b` is read as `compared(a) < compared(b)`, and `a + b` as `counted(a) +
//! counted(b)`. Nothing else of a template changes, and no line is moved.

/// Name of the function that makes an operand one that the engine can calculate with.
pub(crate) const COUNTED: &str = "__counted";

/// Name of the function that makes an operand one that is compared by its digits.
pub(crate) const COMPARED: &str = "__compared";

/// Name of the function that makes a number of a text: the engine would round what is written.
pub(crate) const WRITTEN: &str = "__written";

/// Deepest nesting that is read. The engine refuses less.
const MAX_DEPTH: usize = 400;

/// Words that begin no operand.
const WORDS: [&str; 6] = ["if", "else", "in", "is", "and", "or"];

/// Operators of two characters.
const TWO: [&str; 6] = ["//", "**", "==", "!=", ">=", "<="];

/// Returns `source` with exact operators; `None` if it can't be read.
pub(crate) fn exact(source: &str) -> Option<String> {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find('{') {
        let tag = &rest[at..];
        out.push_str(&rest[..at]);
        let end = match tag.as_bytes().get(1) {
            Some(b'{') => read_tag(tag, "}}", &mut out)?,
            Some(b'%') if let Some(length) = raw_block(tag) => {
                out.push_str(&tag[..length]);
                length
            }
            Some(b'%') => read_tag(tag, "%}", &mut out)?,
            Some(b'#') => {
                let end = 2 + tag[2..].find("#}")? + 2;
                out.push_str(&tag[..end]);
                end
            }
            _ => {
                out.push('{');
                1
            }
        };
        rest = &tag[end..];
    }
    out.push_str(rest);
    Some(out)
}

/// Length of the block that begins here, if its content is no template.
fn raw_block(tag: &str) -> Option<usize> {
    let start = basic_tag(tag, "raw")?;
    let mut at = start;
    loop {
        at += tag[at..].find("{%")?;
        if let Some(length) = basic_tag(&tag[at..], "endraw") {
            return Some(at + length);
        }
        at += 2;
    }
}

/// Length of a tag that is only `name`.
fn basic_tag(tag: &str, name: &str) -> Option<usize> {
    let signs = ['-', '+'];
    let inner = tag.strip_prefix("{%")?;
    let inner = inner.strip_prefix(signs).unwrap_or(inner).trim_start();
    let inner = inner.strip_prefix(name)?.trim_start();
    let inner = inner.strip_prefix(signs).unwrap_or(inner);
    Some(tag.len() - inner.strip_prefix("%}")?.len())
}

/// Writes the tag that begins here. Returns its length.
fn read_tag(tag: &str, end: &str, out: &mut String) -> Option<usize> {
    let signs = usize::from(matches!(tag.as_bytes().get(2), Some(b'-' | b'+')));
    let start = 2 + signs;
    let (tokens, inner) = tokens(&tag[start..], end)?;
    let mut reader = Reader {
        source: &tag[start..start + inner],
        tokens: &tokens,
        at: 0,
        depth: 0,
    };
    out.push_str(&tag[..start]);
    if end == "%}" {
        out.push_str(&reader.keyword());
    }
    while reader.at < tokens.len() {
        let read = reader.sequence()?;
        out.push_str(&read);
        // A bracket that nothing opened: the engine has refused it.
        if reader.at < tokens.len() {
            out.push_str(&reader.take());
        }
    }
    let read_to = tokens.last().map_or(0, |token| token.end);
    let length = tag[start + inner..].find(end)? + end.len();
    out.push_str(&tag[start + read_to..start + inner + length]);
    Some(start + inner + length)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Word,
    Text,
    Whole,
    Fraction,
    Sign,
}

#[derive(Clone, Copy, Debug)]
struct Token {
    kind: Kind,
    start: usize,
    end: usize,
}

/// Reads the tokens up to `end`, as the engine does. Returns them, and the position of the end.
fn tokens(source: &str, end: &str) -> Option<(Vec<Token>, usize)> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut open = 0_usize;
    let mut at = 0;
    loop {
        at += source[at..].len() - source[at..].trim_start().len();
        let rest = &source[at..];
        let closed = rest.strip_prefix(['-', '+']).unwrap_or(rest);
        if open == 0 && (rest.starts_with(end) || closed.starts_with(end)) {
            return Some((tokens, at));
        }
        let first = rest.chars().next()?;
        let (kind, length) = match first {
            '_' | 'a'..='z' | 'A'..='Z' => (Kind::Word, word(rest)),
            '0'..='9' => number(rest, at > 0 && source[..at].ends_with('.')),
            '"' | '\'' => (Kind::Text, text(rest)?),
            _ if TWO.iter().any(|two| rest.starts_with(two)) => (Kind::Sign, 2),
            _ => (Kind::Sign, first.len_utf8()),
        };
        match first {
            '(' | '[' | '{' => open += 1,
            ')' | ']' | '}' => open = open.saturating_sub(1),
            _ => {}
        }
        tokens.push(Token {
            kind,
            start: at,
            end: at + length,
        });
        at += length;
    }
}

fn word(rest: &str) -> usize {
    let is_part = |c: char| c == '_' || c.is_ascii_alphanumeric();
    rest.find(|c| !is_part(c)).unwrap_or(rest.len())
}

fn text(rest: &str) -> Option<usize> {
    let quote = rest.chars().next()?;
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The kind and the length of a number. One after a point is an index and has no fraction.
fn number(rest: &str, is_index: bool) -> (Kind, usize) {
    let bytes = rest.as_bytes();
    if matches!(bytes.get(1), Some(b'b' | b'B' | b'o' | b'O' | b'x' | b'X')) && bytes[0] == b'0' {
        let digits = |byte: &u8| !(byte.is_ascii_hexdigit() || *byte == b'_');
        let length = bytes[2..].iter().position(digits);
        return (Kind::Whole, length.map_or(rest.len(), |length| length + 2));
    }
    let mut kind = Kind::Whole;
    let mut has_exponent = false;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let next = bytes.get(at + 1).copied().unwrap_or_default();
        let before = at.checked_sub(1).map_or(0, |before| bytes[before]);
        match byte {
            b'0'..=b'9' | b'_' => {}
            b'.' if kind == Kind::Whole && !is_index => {
                let is_exponent = matches!(next, b'e' | b'E')
                    && matches!(bytes.get(at + 2), Some(b'+' | b'-' | b'0'..=b'9'));
                if !is_exponent && (next == b'_' || next.is_ascii_alphabetic()) {
                    break;
                }
                kind = Kind::Fraction;
            }
            b'e' | b'E' if !has_exponent => {
                has_exponent = true;
                kind = Kind::Fraction;
            }
            b'+' | b'-' if matches!(before, b'e' | b'E') => {}
            _ => break,
        }
        at += 1;
    }
    (kind, at)
}

/// Reads expressions as the engine's parser does, as far as the extent of operands goes.
struct Reader<'s> {
    source: &'s str,
    tokens: &'s [Token],
    at: usize,
    depth: usize,
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
    fn take(&mut self) -> String {
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
    fn keyword(&mut self) -> String {
        let is_loop = self.is_next(&["for"]);
        let mut taken = self.take();
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
    fn sequence(&mut self) -> Option<String> {
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
            text.push_str(&operator);
            text.push_str(&compared(&operand));
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
                operand.text.push_str(&self.name());
                operand.text.push_str(&self.arguments()?);
            } else if self.is_next(&["is"]) {
                operand.text.push_str(&self.take());
                if self.is_next(&["not"]) {
                    operand.text.push_str(&self.take());
                }
                operand.text.push_str(&self.name());
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
    fn name(&mut self) -> String {
        let mut name = self.take();
        while self.is_next(&["."]) {
            name.push_str(&self.take());
            name.push_str(&self.take());
        }
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

fn compared(operand: &Operand) -> String {
    match operand.only {
        Some(Kind::Text) => operand.text.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, expected: &str) {
        let expected = expected
            .replace("n(", "__counted(")
            .replace("c(", "__compared(")
            .replace("w(", "__written(");
        assert_eq!(exact(source).as_deref(), Some(expected.as_str()));
    }

    #[test]
    fn operands_are_passed_on_and_nothing_else_is_changed() {
        check("{{ a.b }} {", "{{ a.b }} {");
        check("{{ a ~ 'x' ~ 1.10 }}", "{{ a ~ 'x' ~ 1.10 }}");
        check(
            "{{- a.b['x'] * 2 + c }}",
            "{{- n(n(a.b['x']) * 2) + n(c) }}",
        );
        check("{{ -a.b|abs ** 2 }}", "{{ n(-n(a.b)|abs) ** 2 }}");
        check(
            "{{ a is divisibleby 3 and b }}",
            "{{ a is divisibleby 3 and b }}",
        );
        check("{{ 1.0 == a }}", "{{ w('1.0') == c(a) }}");
        check("{{ a == -1.5 }}", "{{ c(a) == w('-1.5') }}");
        check("{{ 100. == a }}", "{{ w('100') == c(a) }}");
        check("{{ 01.5 == a }}", "{{ w('1.5') == c(a) }}");
        check("{{ a == -00.50 }}", "{{ c(a) == w('-0.50') }}");
        check("{{ a > 1.e+3 }}", "{{ c(a) > w('1e+3') }}");
        check("{{ a > 1_0.5_0E-07 }}", "{{ c(a) > w('10.50E-07') }}");
        check("{{ a == - b }}", "{{ c(a) == c(- n(b)) }}");
        check("{{ 1 < a.b <= 3e2 }}", "{{ c(1) < c(a.b) <= w('3e2') }}");
        check(
            "{% if not a not in [1, b*2] -%}",
            "{% if not c(a) not in c([1, n(b)*2]) -%}",
        );
        check(
            "{% for k, v in a.items if v > 1 %}{{ v }}{% endfor %}",
            "{% for k, v in a.items if c(v) > c(1) %}{{ v }}{% endfor %}",
        );
        check("{% set x = a\n - b %}", "{% set x = n(a)\n - n(b) %}");
        check(
            "{{ a|default(b + 1)|round(precision=2) if c == 'x' else d }}",
            "{{ a|default(n(b) + 1)|round(precision=2) if c(c) == 'x' else d }}",
        );
        check("{{ {'a': b - 1}['}}'] }}", "{{ {'a': n(b) - 1}['}}'] }}");
        check(
            "{% raw %}{{ a - b }}{% endraw %}",
            "{% raw %}{{ a - b }}{% endraw %}",
        );
        check("{# a - b #}{{ a -}}", "{# a - b #}{{ a -}}");
        check("{{ a[1:b - 1].0.c }}", "{{ a[1:n(b) - 1].0.c }}");
        check("{{ 'a' 'b' == a }}", "{{ c('a' 'b') == c(a) }}");
        check("{{ f(*a, **b) }}", "{{ f(*a, **b) }}");
        check(
            "{{ 'if' if 'in' in a else '-' }}",
            "{{ 'if' if 'in' in c(a) else '-' }}",
        );
    }

    #[test]
    fn what_has_no_end_is_not_read() {
        for source in ["{{ a", "{% if a", "{# a", "{{ 'a }}", "{{ (a }}"] {
            assert_eq!(exact(source), None, "{source}");
        }
        let deep = format!("{{{{ {}1{} }}}}", "(".repeat(9000), ")".repeat(9000));
        assert_eq!(exact(&deep), None);
    }
}
