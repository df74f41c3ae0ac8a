//! The names in an expression: a misspelt one is found at the start, not by the
//! first event.

use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, SourceInfo};
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

/// Checks every name, and says how deep loops stand in each other.
pub(crate) fn check(program: &Program) -> Result<u32, Misread> {
    let mut walk = Walk { source: program.source_info(), scope: Vec::new(), loops: 0, deepest: 0 };
    walk.visit(program.expression())?;
    Ok(walk.deepest)
}

struct Walk<'p> {
    source: &'p SourceInfo,
    /// Variables of the loops around.
    scope: Vec<&'p str>,
    loops: u32,
    deepest: u32,
}

impl<'p> Walk<'p> {
    fn wrong(&self, at: &IdedExpr, message: String) -> Misread {
        let offset = self.source.offset_for(at.id).map_or(0, |(start, _)| start as usize);
        misread(&self.source.source, offset, message)
    }

    fn visit(&mut self, node: &'p IdedExpr) -> Result<(), Misread> {
        match &node.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.identifier(node, name),
            Expr::Select(select) => self.visit(&select.operand),
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.visit(element)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| self.entry(&entry.expr)),
            Expr::Struct(_) => Err(self.wrong(node, "a condition makes no messages".to_owned())),
            Expr::Comprehension(inner) => self.comprehension(node, inner),
            Expr::Call(call) => {
                self.function(node, &call.func_name)?;
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

    fn function(&self, at: &IdedExpr, name: &str) -> Result<(), Misread> {
        // Operators are calls of functions whose names are no words.
        let is_operator = !name.starts_with(|c: char| c.is_ascii_alphabetic());
        match is_operator || FUNCTIONS.contains(&name) {
            true => Ok(()),
            false => {
                let known = FUNCTIONS.join(", ");
                let why = format!(
                    "no function is called `{name}`; there are: {known}, has, all, exists, exists_one, filter, map"
                );
                Err(self.wrong(at, why))
            }
        }
    }

    fn comprehension(&mut self, at: &IdedExpr, inner: &'p ComprehensionExpr) -> Result<(), Misread> {
        self.visit(&inner.iter_range)?;
        self.visit(&inner.accu_init)?;
        self.loops += 1;
        self.deepest = self.deepest.max(self.loops);
        if self.loops > MAX_LOOPS {
            return Err(self.wrong(at, format!("loops stand in each other more than {MAX_LOOPS} deep")));
        }
        let outside = self.scope.len();
        self.scope.extend([inner.iter_var.as_str(), inner.accu_var.as_str()]);
        self.scope.extend(inner.iter_var2.as_deref());
        for part in [&inner.loop_cond, &inner.loop_step, &inner.result] {
            self.visit(part)?;
        }
        self.scope.truncate(outside);
        self.loops -= 1;
        Ok(())
    }
}
