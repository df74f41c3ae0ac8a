//! The names in an expression, which are checked at the start, so that the first event does not
//! have to find a misspelt one.

use std::collections::BTreeSet;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SourceInfo};
use cel::{IdedExpr, Program};

use crate::ConditionSyntaxError;
use crate::bounds::{MAX_LOOPS, misread};
use crate::fields::{FieldPath, indexed};

/// The only variable.
pub(crate) const EVENT: &str = "event";

/// Names of types, as in `type(x) == string`.
const TYPES: [&str; 9] = [
    "bool",
    "bytes",
    "double",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "uint",
];

/// Functions of the standard library: CEL's specification, "Standard Definitions", without those
/// of time, which is not needed here.
const FUNCTIONS: [&str; 13] = [
    "bool",
    "bytes",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "int",
    "matches",
    "size",
    "startsWith",
    "string",
    "type",
    "uint",
];

/// Functions that are called on a text, with one argument.
const MEMBERS: [&str; 4] = ["contains", "endsWith", "matches", "startsWith"];

/// Deepest nesting of an expression, with brackets or without.
const MAX_DEPTH: usize = 64;

fn is_called_right(call: &CallExpr) -> bool {
    match (
        call.func_name.as_str(),
        call.target.is_some(),
        call.args.len(),
    ) {
        (name, true, 1) => MEMBERS.contains(&name),
        (name, true, 0) => name == "size",
        (name, false, 1) => !MEMBERS.contains(&name),
        _ => false,
    }
}

/// Largest number of texts or lists that are put together: each `+` copies both sides.
const MAX_SUMS: u32 = 16;

/// Largest automaton of a pattern, in bytes: it stays in memory with its expression.
const MAX_PATTERN: usize = 64 << 10;

/// Whether a call's cost grows with the values that it meets.
fn walks_values(call: &CallExpr) -> bool {
    let is_literal = |node: &IdedExpr| matches!(node.expr, Expr::Literal(_));
    match call.func_name.as_str() {
        "@in" | "matches" | "contains" | "size" | "string" | "bytes" | "int" | "uint"
        | "double" => true,
        "_+_" => !is_collecting(call),
        // A comparison with a literal ends where the literal ends.
        "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" | "startsWith" | "endsWith" => {
            !call.args.iter().any(is_literal)
        }
        _ => false,
    }
}

/// Whether this `+` is a loop's own, which the loop's weight counts already. The library gives
/// what a loop collects a name that nobody can write.
fn is_collecting(call: &CallExpr) -> bool {
    call.args
        .iter()
        .any(|arg| matches!(&arg.expr, Expr::Ident(name) if name.starts_with('@')))
}

/// Whether a loop collects other values than those it walks over, as `map` does and `filter` does
/// not: the result may be larger than the event.
fn makes_values(inner: &ComprehensionExpr) -> bool {
    let Expr::List(_) = inner.accu_init.expr else {
        return false;
    };
    !collects(&inner.loop_step, &inner.iter_var)
}

/// Whether `step` adds only the variable itself to what is collected.
fn collects(step: &IdedExpr, variable: &str) -> bool {
    match &step.expr {
        Expr::Ident(_) => true,
        Expr::List(list) => list
            .elements
            .iter()
            .all(|element| matches!(&element.expr, Expr::Ident(name) if name == variable)),
        Expr::Call(call) if call.func_name == "_?_:_" => call
            .args
            .iter()
            .skip(1)
            .all(|branch| collects(branch, variable)),
        Expr::Call(call) => {
            call.func_name == "_+_" && call.args.iter().all(|part| collects(part, variable))
        }
        _ => false,
    }
}

/// Checks every name. Returns how deep loops are nested, the fields that are read of an event,
/// and those that are named.
pub(crate) fn check(
    program: &Program,
) -> Result<(u32, Reads, Vec<FieldPath>), ConditionSyntaxError> {
    let source = program.source_info();
    let reads = Reads::Fields(BTreeSet::new());
    let mut walk = Walk {
        source,
        scope: Vec::new(),
        depth: 0,
        loops: 0,
        deepest: 0,
        sums: 0,
        makers: 0,
        reads,
        fields: Vec::new(),
    };
    walk.visit(program.expression())?;
    Ok((walk.deepest, walk.reads, walk.fields))
}

/// The fields of an event that an expression reads: it can't see what it does not name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// Only these fields.
    Fields(BTreeSet<String>),
    /// All fields, since it uses the event as a value, or computes the name of a field.
    Everything,
}

impl Reads {
    pub(crate) fn has(&self, field: &str) -> bool {
        match self {
            Self::Fields(fields) => fields.contains(field),
            Self::Everything => true,
        }
    }

    fn add(&mut self, field: &str) {
        if let Self::Fields(fields) = self {
            fields.insert(field.to_owned());
        }
    }
}

/// The value of which a field is read, of a field, and so on.
fn root(node: &IdedExpr) -> &IdedExpr {
    match &node.expr {
        Expr::Select(select) => root(&select.operand),
        Expr::Call(call) => indexed(call).map_or(node, |(of, _)| root(of)),
        _ => node,
    }
}

struct Walk<'p> {
    source: &'p SourceInfo,
    /// Variables of the enclosing loops.
    scope: Vec<&'p str>,
    depth: usize,
    loops: u32,
    deepest: u32,
    /// Number of `+`, except those with which loops collect.
    sums: u32,
    /// Number of loops that make values.
    makers: u32,
    reads: Reads,
    fields: Vec<FieldPath>,
}

impl<'p> Walk<'p> {
    fn wrong(&self, at: &IdedExpr, message: String) -> ConditionSyntaxError {
        let offset = self
            .source
            .offset_for(at.id)
            .map_or(0, |(start, _)| start as usize);
        misread(&self.source.source, offset, message)
    }

    fn visit(&mut self, node: &'p IdedExpr) -> Result<(), ConditionSyntaxError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.wrong(node, format!("this is nested more than {MAX_DEPTH} deep")));
        }
        self.note_field(node);
        self.look_at(node)?;
        self.depth -= 1;
        Ok(())
    }

    /// Notes a field that is written out.
    fn note_field(&mut self, node: &'p IdedExpr) {
        let is_field = match &node.expr {
            Expr::Select(_) => true,
            Expr::Call(call) => indexed(call).is_some(),
            _ => false,
        };
        if !is_field {
            return;
        }
        let is_of_event = self.is_event(root(node));
        self.fields
            .extend(FieldPath::of(node, is_of_event, self.source));
    }

    fn look_at(&mut self, node: &'p IdedExpr) -> Result<(), ConditionSyntaxError> {
        match &node.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Unspecified => {
                Err(self.wrong(node, "this can't be read as a condition".to_owned()))
            }
            Expr::Ident(name) => self.identifier(node, name),
            Expr::Select(select) if self.is_event(&select.operand) => {
                self.reads.add(&select.field);
                Ok(())
            }
            Expr::Select(select) => self.visit(&select.operand),
            Expr::List(list) => list
                .elements
                .iter()
                .try_for_each(|element| self.visit(element)),
            Expr::Map(map) => map
                .entries
                .iter()
                .try_for_each(|entry| self.entry(&entry.expr)),
            Expr::Struct(_) => Err(self.wrong(node, "a condition makes no messages".to_owned())),
            Expr::Comprehension(inner) => self.comprehension(node, inner),
            Expr::Call(call) if let Some(field) = self.indexed_field(call) => {
                self.reads.add(field);
                Ok(())
            }
            Expr::Call(call) => {
                self.function(node, call)?;
                call.target
                    .iter()
                    .try_for_each(|target| self.visit(target))?;
                call.args
                    .iter()
                    .try_for_each(|argument| self.visit(argument))
            }
        }
    }

    fn entry(&mut self, entry: &'p EntryExpr) -> Result<(), ConditionSyntaxError> {
        match entry {
            EntryExpr::StructField(field) => self.visit(&field.value),
            EntryExpr::MapEntry(entry) => {
                self.visit(&entry.key)?;
                self.visit(&entry.value)
            }
        }
    }

    /// Whether this is the event, and not a loop's variable of the same name.
    fn is_event(&self, node: &IdedExpr) -> bool {
        matches!(&node.expr, Expr::Ident(name) if name == EVENT && !self.scope.contains(&EVENT))
    }

    /// The field in `event["field"]`.
    fn indexed_field(&self, call: &'p CallExpr) -> Option<&'p str> {
        let (of, field) = indexed(call)?;
        self.is_event(of).then_some(field)
    }

    fn identifier(&mut self, at: &IdedExpr, name: &str) -> Result<(), ConditionSyntaxError> {
        if self.is_event(at) {
            self.reads = Reads::Everything;
        }
        let is_known = name == EVENT || TYPES.contains(&name) || self.scope.contains(&name);
        match is_known {
            true => Ok(()),
            false => Err(self.wrong(
                at,
                format!("nothing is called `{name}`: fields are {EVENT}.<field>"),
            )),
        }
    }

    fn function(&mut self, at: &IdedExpr, call: &CallExpr) -> Result<(), ConditionSyntaxError> {
        let name = call.func_name.as_str();
        // Operators are calls of functions whose names are not words.
        let is_operator = name == "@in" || !name.contains(|c: char| c.is_ascii_alphanumeric());
        if !is_operator && !FUNCTIONS.contains(&name) && name != "@not_strictly_false" {
            let known = FUNCTIONS.join(", ");
            let why = format!(
                "no function is called `{name}`; there are: {known}, has, all, exists, exists_one, filter, map"
            );
            return Err(self.wrong(at, why));
        }
        if !is_operator && !is_called_right(call) {
            let why = match MEMBERS.contains(&name) {
                true => format!("expected text.{name}(text)"),
                false => format!("expected {name}(value)"),
            };
            return Err(self.wrong(at, why));
        }
        if name == "matches" {
            self.pattern(at, call)?;
        }
        if name == "_+_" && !is_collecting(call) {
            self.sums += 1;
            if self.sums > MAX_SUMS {
                return Err(self.wrong(at, format!("more than {MAX_SUMS} `+`")));
            }
        }
        match walks_values(call) {
            true => self.level(at, 1),
            false => Ok(()),
        }
    }

    /// Checks a pattern: it must be written out, since one in an event could cost anything, and
    /// one that is wrong is reported now.
    fn pattern(&self, at: &IdedExpr, call: &CallExpr) -> Result<(), ConditionSyntaxError> {
        let Some(Expr::Literal(LiteralValue::String(pattern))) =
            call.args.first().map(|arg| &arg.expr)
        else {
            return Err(self.wrong(at, "expected a pattern that is written out".to_owned()));
        };
        match regex::RegexBuilder::new(pattern.inner())
            .size_limit(MAX_PATTERN)
            .build()
        {
            Ok(_) => Ok(()),
            Err(regex::Error::CompiledTooBig(_)) => Err(self.wrong(
                at,
                format!("this pattern takes more than {MAX_PATTERN} bytes"),
            )),
            Err(_) => Err(self.wrong(at, "this pattern is not a regular expression".to_owned())),
        }
    }

    /// Records work within this many more loops, which must not be too many.
    fn level(&mut self, at: &IdedExpr, more: u32) -> Result<(), ConditionSyntaxError> {
        self.deepest = self.deepest.max(self.loops + more);
        match self.loops + more > MAX_LOOPS {
            true => Err(self.wrong(at, format!("loops stand in each other more than {MAX_LOOPS} deep, counting comparisons of whole values"))),
            false => Ok(()),
        }
    }

    fn comprehension(
        &mut self,
        at: &IdedExpr,
        inner: &'p ComprehensionExpr,
    ) -> Result<(), ConditionSyntaxError> {
        let makers = self.makers;
        self.visit(&inner.iter_range)?;
        self.visit(&inner.accu_init)?;
        // A loop that collects copies what it has collected with every step, and a loop over
        // values that were made walks over more than the event has.
        let collects = matches!(inner.accu_init.expr, Expr::List(_) | Expr::Map(_));
        let weight = if collects { 2 } else { 1 } + if self.makers > makers { 2 } else { 0 };
        self.makers += u32::from(makes_values(inner));
        self.level(at, weight)?;
        self.loops += weight;
        let outside = self.scope.len();
        self.scope
            .extend([inner.iter_var.as_str(), inner.accu_var.as_str()]);
        self.scope.extend(inner.iter_var2.as_deref());
        for part in [&inner.loop_cond, &inner.loop_step, &inner.result] {
            self.visit(part)?;
        }
        self.scope.truncate(outside);
        self.loops -= weight;
        Ok(())
    }
}
