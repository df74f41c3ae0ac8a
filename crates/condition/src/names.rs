//! The names in an expression: a misspelt one is found at the start, not by the
//! first event.

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SourceInfo};
use cel::{IdedExpr, Program};

use crate::Misread;
use crate::bounds::{MAX_LOOPS, misread};

/// The only variable.
const EVENT: &str = "event";

/// Names of types, as in `type(x) == string`.
const TYPES: [&str; 9] = ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "uint"];

/// What the standard library has: CEL's specification, "Standard Definitions",
/// without time, which needs none here.
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

/// Called on a text, with one argument.
const MEMBERS: [&str; 4] = ["contains", "endsWith", "matches", "startsWith"];

/// How deep an expression may be nested, written with brackets or without.
const MAX_DEPTH: usize = 64;

fn is_called_right(call: &CallExpr) -> bool {
    match (call.func_name.as_str(), call.target.is_some(), call.args.len()) {
        (name, true, 1) => MEMBERS.contains(&name),
        (name, true, 0) => name == "size",
        (name, false, 1) => !MEMBERS.contains(&name),
        _ => false,
    }
}

/// Whether a call's cost grows with the values that it meets.
fn walks_values(call: &CallExpr) -> bool {
    let is_literal = |node: &IdedExpr| matches!(node.expr, Expr::Literal(_));
    match call.func_name.as_str() {
        "@in" | "matches" | "contains" => true,
        "_==_" | "_!=_" => !call.args.iter().any(is_literal),
        _ => false,
    }
}

/// Checks every name, and says how deep loops stand in each other.
pub(crate) fn check(program: &Program) -> Result<u32, Misread> {
    let mut walk = Walk { source: program.source_info(), scope: Vec::new(), depth: 0, loops: 0, deepest: 0 };
    walk.visit(program.expression())?;
    Ok(walk.deepest)
}

struct Walk<'p> {
    source: &'p SourceInfo,
    /// Variables of the loops around.
    scope: Vec<&'p str>,
    depth: usize,
    loops: u32,
    deepest: u32,
}

impl<'p> Walk<'p> {
    fn wrong(&self, at: &IdedExpr, message: String) -> Misread {
        let offset = self.source.offset_for(at.id).map_or(0, |(start, _)| start as usize);
        misread(&self.source.source, offset, message)
    }

    fn visit(&mut self, node: &'p IdedExpr) -> Result<(), Misread> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.wrong(node, format!("this is nested more than {MAX_DEPTH} deep")));
        }
        self.look_at(node)?;
        self.depth -= 1;
        Ok(())
    }

    fn look_at(&mut self, node: &'p IdedExpr) -> Result<(), Misread> {
        match &node.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Unspecified => Err(self.wrong(node, "this can't be read as a condition".to_owned())),
            Expr::Ident(name) => self.identifier(node, name),
            Expr::Select(select) => self.visit(&select.operand),
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.visit(element)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| self.entry(&entry.expr)),
            Expr::Struct(_) => Err(self.wrong(node, "a condition makes no messages".to_owned())),
            Expr::Comprehension(inner) => self.comprehension(node, inner),
            Expr::Call(call) => {
                self.function(node, call)?;
                call.target.iter().try_for_each(|target| self.visit(target))?;
                call.args.iter().try_for_each(|argument| self.visit(argument))
            }
        }
    }

    fn entry(&mut self, entry: &'p EntryExpr) -> Result<(), Misread> {
        match entry {
            EntryExpr::StructField(field) => self.visit(&field.value),
            EntryExpr::MapEntry(entry) => {
                self.visit(&entry.key)?;
                self.visit(&entry.value)
            }
        }
    }

    fn identifier(&self, at: &IdedExpr, name: &str) -> Result<(), Misread> {
        let is_known = name == EVENT || TYPES.contains(&name) || self.scope.contains(&name);
        match is_known {
            true => Ok(()),
            false => Err(self.wrong(at, format!("nothing is called `{name}`: fields are {EVENT}.<field>"))),
        }
    }

    fn function(&mut self, at: &IdedExpr, call: &CallExpr) -> Result<(), Misread> {
        let name = call.func_name.as_str();
        // Operators are calls of functions whose names are no words.
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
        match walks_values(call) {
            true => self.level(at, 1),
            false => Ok(()),
        }
    }

    /// One that an event brings along could be of any cost, and one that is wrong
    /// should be found now.
    fn pattern(&self, at: &IdedExpr, call: &CallExpr) -> Result<(), Misread> {
        let Some(Expr::Literal(LiteralValue::String(pattern))) = call.args.first().map(|arg| &arg.expr)
        else {
            return Err(self.wrong(at, "expected a pattern that is written out".to_owned()));
        };
        match regex::Regex::new(pattern.inner()) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.wrong(at, "this pattern is not a regular expression".to_owned())),
        }
    }

    /// Work within this many more loops.
    fn level(&mut self, at: &IdedExpr, more: u32) -> Result<(), Misread> {
        self.deepest = self.deepest.max(self.loops + more);
        match self.loops + more > MAX_LOOPS {
            true => Err(self.wrong(at, format!("loops stand in each other more than {MAX_LOOPS} deep, counting comparisons of whole values"))),
            false => Ok(()),
        }
    }

    fn comprehension(&mut self, at: &IdedExpr, inner: &'p ComprehensionExpr) -> Result<(), Misread> {
        self.visit(&inner.iter_range)?;
        self.visit(&inner.accu_init)?;
        // What collects values copies what it has collected with every step.
        let weight = if matches!(inner.accu_init.expr, Expr::List(_) | Expr::Map(_)) { 2 } else { 1 };
        self.level(at, weight)?;
        self.loops += weight;
        let outside = self.scope.len();
        self.scope.extend([inner.iter_var.as_str(), inner.accu_var.as_str()]);
        self.scope.extend(inner.iter_var2.as_deref());
        for part in [&inner.loop_cond, &inner.loop_step, &inner.result] {
            self.visit(part)?;
        }
        self.scope.truncate(outside);
        self.loops -= weight;
        Ok(())
    }
}
