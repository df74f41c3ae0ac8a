//! The operators of a template, made exact: the engine's own see numbers of 64 and 128 bits only.
//!
//! The engine has no way to give an operator a meaning of ours. So operands are passed through
//! functions: `a < b` is read as `compared(a) < compared(b)`, and `a + b` as `counted(a) +
//! counted(b)`. Nothing else of a template changes, and no line is moved.

mod reader;
mod tokens;

pub(crate) use crate::operators::reader::Named;
use crate::operators::reader::Reader;
pub(crate) use crate::operators::reader::{COMPARED, COUNTED, SEARCHED, WRITTEN};
use crate::operators::tokens::tokens;

/// Returns `source` with exact operators, and the filters and tests that it names; `None` if it
/// can't be read.
pub(crate) fn exact(source: &str) -> Option<(String, Vec<Named>)> {
    let mut out = String::with_capacity(source.len());
    let mut names = Vec::new();
    let mut rest = source;
    while let Some(at) = rest.find('{') {
        let tag = &rest[at..];
        out.push_str(&rest[..at]);
        let end = match tag.as_bytes().get(1) {
            Some(b'{') => read_tag(tag, "}}", &mut out, &mut names)?,
            Some(b'%') if let Some(length) = raw_block(tag) => {
                out.push_str(&tag[..length]);
                length
            }
            Some(b'%') => read_tag(tag, "%}", &mut out, &mut names)?,
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
    Some((out, names))
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
fn read_tag(tag: &str, end: &str, out: &mut String, names: &mut Vec<Named>) -> Option<usize> {
    // No line is moved, so it begins in the same line as in the source.
    let line = 1 + out.matches('\n').count();
    let signs = usize::from(matches!(tag.as_bytes().get(2), Some(b'-' | b'+')));
    let start = 2 + signs;
    let (tokens, inner) = tokens(&tag[start..], end)?;
    let mut reader = Reader {
        source: &tag[start..start + inner],
        tokens: &tokens,
        at: 0,
        depth: 0,
        line,
        names,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, expected: &str) {
        let expected = expected
            .replace("n(", "__counted(")
            .replace("c(", "__compared(")
            .replace("s(", "__searched(")
            .replace("w(", "__written(");
        let exact = exact(source).map(|(exact, _)| exact);
        assert_eq!(exact.as_deref(), Some(expected.as_str()));
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
            "{% if not c(a) not in s([1, n(b)*2]) -%}",
        );
        check(
            "{% for k, v in a.items if v > 1 %}{{ v }}{% endfor %}",
            "{% for k, v in a.items if c(v) > c(1) %}{{ v }}{% endfor %}",
        );
        check("{% set x = a\n - b %}", "{% set x = n(a)\n - n(b) %}");
        check(
            "{{ a|default(b + 1)|round(precision=2) if c == 'x' else d }}",
            "{{ a|default(n(b) + 1)|round(precision=2) if c(c) == c('x') else d }}",
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
            "{{ 'if' if c('in') in s(a) else '-' }}",
        );
    }

    #[test]
    fn what_has_no_end_is_not_read() {
        for source in ["{{ a", "{% if a", "{# a", "{{ 'a }}", "{{ (a }}"] {
            assert!(exact(source).is_none(), "{source}");
        }
        let deep = format!("{{{{ {}1{} }}}}", "(".repeat(9000), ")".repeat(9000));
        assert!(exact(&deep).is_none());
    }
}
