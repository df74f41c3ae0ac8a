//! The calls of an expression, made exact: comparisons and conversions are functions of ours.

use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, SourceInfo};
use cel::common::functions::Function;
use cel::common::types::DYN_TYPE;
use cel::{Context, Env, IdedExpr};
use event_model::Decimal;

use crate::comparison::{at_least, at_most, different, equal, less, more, within};
use crate::conversion::{plain, to_double, to_int, to_string, to_uint};
use crate::numbers::Number;

/// Name of the function that gives a call what the language has for a number.
const PLAIN: &str = "@plain";

/// The library's functions that are replaced by ours. Nobody can write their names.
const COMPARISONS: [(&str, &str, Function); 7] = [
    ("_==_", "@equal", equal),
    ("_!=_", "@different", different),
    ("_<_", "@less", less),
    ("_<=_", "@at_most", at_most),
    ("_>_", "@more", more),
    ("_>=_", "@at_least", at_least),
    ("@in", "@within", within),
];

/// The conversions that are replaced by ours.
const CONVERSIONS: [(&str, &str, Function); 4] = [
    ("string", "@string", to_string),
    ("double", "@double", to_double),
    ("int", "@int", to_int),
    ("uint", "@uint", to_uint),
];

/// Calls that are given every value as it is: they choose, or ask for truth only. The last is
/// what `-` makes of a number.
const PASSING: [&str; 7] = [
    "_&&_",
    "_||_",
    "!_",
    "_?_:_",
    "@not_strictly_false",
    "dyn",
    "-_",
];

/// Adds the functions to an environment.
pub(crate) fn add(env: &mut Env) {
    for (_, name, function) in COMPARISONS {
        let added = env.add_overload(name, name, vec![DYN_TYPE, DYN_TYPE], function);
        debug_assert!(added.is_ok(), "{added:?}");
    }
    for (name, function) in CONVERSIONS
        .map(|(_, name, function)| (name, function))
        .into_iter()
        .chain([(PLAIN, plain as Function)])
    {
        let added = env.add_overload(name, name, vec![DYN_TYPE], function);
        debug_assert!(added.is_ok(), "{added:?}");
    }
}

/// Makes comparisons and conversions exact, and the fractions that are written out.
pub(crate) fn make_exact(
    expression: &mut IdedExpr,
    source: &SourceInfo,
    scope: &mut Context<'static, 'static>,
) {
    let mut rewriting = Rewriting {
        source,
        scope,
        count: 0,
    };
    rewriting.visit(expression);
}

struct Rewriting<'r> {
    source: &'r SourceInfo,
    scope: &'r mut Context<'static, 'static>,
    count: usize,
}

impl Rewriting<'_> {
    /// Changes an expression whose depth was bounded before.
    fn visit(&mut self, node: &mut IdedExpr) {
        match &mut node.expr {
            Expr::Unspecified | Expr::Ident(_) => {}
            Expr::Literal(literal) => {
                let fraction = match literal {
                    LiteralValue::Double(value) => self.written(node.id, *value.inner()),
                    _ => None,
                };
                if let Some(number) = fraction {
                    // A name that nobody can write.
                    let name = format!("@number{}", self.count);
                    self.count += 1;
                    self.scope
                        .add_variable_as_val(name.clone(), Box::new(number));
                    node.expr = Expr::Ident(name);
                }
            }
            Expr::Select(select) => self.visit(&mut select.operand),
            Expr::List(list) => list
                .elements
                .iter_mut()
                .for_each(|element| self.visit(element)),
            Expr::Map(map) => map
                .entries
                .iter_mut()
                .for_each(|entry| self.visit_entry(&mut entry.expr)),
            Expr::Struct(fields) => fields
                .entries
                .iter_mut()
                .for_each(|entry| self.visit_entry(&mut entry.expr)),
            Expr::Comprehension(inner) => {
                for part in [
                    &mut inner.iter_range,
                    &mut inner.accu_init,
                    &mut inner.loop_cond,
                    &mut inner.loop_step,
                    &mut inner.result,
                ] {
                    self.visit(part);
                }
            }
            Expr::Call(call) => self.visit_call(call),
        }
    }

    fn visit_entry(&mut self, entry: &mut EntryExpr) {
        match entry {
            EntryExpr::StructField(field) => self.visit(&mut field.value),
            EntryExpr::MapEntry(entry) => {
                self.visit(&mut entry.key);
                self.visit(&mut entry.value);
                make_plain(&mut entry.key);
            }
        }
    }

    fn visit_call(&mut self, call: &mut CallExpr) {
        if let Some(target) = &mut call.target {
            self.visit(target);
        }
        call.args
            .iter_mut()
            .for_each(|argument| self.visit(argument));
        // What a loop collects or counts is the library's own.
        let is_collected =
            |argument: &IdedExpr| matches!(&argument.expr, Expr::Ident(name) if name == "@result");
        let name = call.func_name.as_str();
        if PASSING.contains(&name) || call.args.iter().any(is_collected) {
            return;
        }
        let ours = COMPARISONS
            .iter()
            .chain(&CONVERSIONS)
            .find(|(theirs, ..)| *theirs == name);
        match (ours, &call.target) {
            (Some((_, ours, _)), None) => call.func_name = (*ours).to_owned(),
            _ => {
                call.target.iter_mut().for_each(|target| make_plain(target));
                call.args.iter_mut().for_each(make_plain);
            }
        }
    }

    /// The fraction at `id` as it is written out, if that is its value.
    fn written(&self, id: u64, value: f64) -> Option<Number> {
        let (start, _) = self.source.offset_for(id)?;
        let rest = self.source.source.get(start as usize..)?;
        let is_part = |(at, c): &(usize, char)| {
            let is_sign = matches!(c, '+' | '-');
            let after_e = rest[..*at].ends_with(['e', 'E']);
            c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E') || (is_sign && (*at == 0 || after_e))
        };
        let length = rest.char_indices().take_while(is_part).count();
        let text = &rest[..length];
        let text = match text.strip_prefix('.') {
            Some(digits) => format!("0.{digits}"),
            None => text.to_owned(),
        };
        let is_it = text.parse().is_ok_and(|parsed: f64| parsed == value);
        (is_it && Decimal::parse(&text).is_some()).then(|| Number::fraction(&text))
    }
}

/// Gives what the language has for a value. A literal is that already, but for a fraction.
fn make_plain(node: &mut IdedExpr) {
    let is_own = |name: &str| name.starts_with('@') && !name.starts_with("@number");
    match &node.expr {
        Expr::Literal(_) => return,
        Expr::Ident(name) if is_own(name) => return,
        _ => {}
    }
    let inner = IdedExpr {
        id: node.id,
        expr: std::mem::replace(&mut node.expr, Expr::Unspecified),
    };
    node.expr = Expr::Call(CallExpr {
        func_name: PLAIN.to_owned(),
        target: None,
        args: vec![inner],
    });
}
