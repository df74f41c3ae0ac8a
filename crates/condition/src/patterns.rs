//! Compiled patterns. They are compiled together with their expression, since the library's own
//! `matches` would compile its pattern again for every value.

use std::any::Any;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue};
use cel::common::types::{CelBool, CelString, Type};
use cel::common::value::{StaticVal, Val};
use cel::parser::Expression;
use cel::{Context, Env, IdedExpr, Program};
use regex::Regex;

use crate::exact_calls;

/// A compiled pattern, as a value that only `matches` accepts.
#[derive(Clone, Debug)]
struct Pattern(Regex);

static TYPE: Type = Type::new_unspecified_type("pattern");

impl Val for Pattern {
    fn get_type(&self) -> &Type {
        <Self as Val>::cel_type()
    }

    fn cel_type() -> &'static Type {
        &TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Pattern {}

fn matches(text: &CelString<'_>, pattern: &Pattern) -> CelBool {
    CelBool::from(pattern.0.is_match(text.inner()))
}

/// Functions that every expression may call. The library's own `matches` is among them, for a
/// pattern that could not be replaced by its compiled form.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    let added = cel::add_member_overload!(env, fn matches: (CelString<'_>, Pattern) -> CelBool);
    debug_assert!(added.is_ok(), "{added:?}");
    exact_calls::add(&mut env);
    Arc::new(env)
});

/// Replaces every pattern that is written out by a variable, and makes comparisons exact. Returns
/// the expression, and the scope with these variables, in which every evaluation begins.
pub(crate) fn compile(program: &Program) -> (Expression, Context<'static, 'static>) {
    let mut expression = program.expression().clone();
    let mut scope = Context::with_env(Arc::clone(&ENV));
    let mut count = 0;
    visit(&mut expression, &mut |call| {
        let Some(pattern) = pattern_of(call) else {
            return;
        };
        // A name that nobody can write.
        let name = format!("@pattern{count}");
        scope.add_variable_as_val(name.clone(), Box::new(pattern));
        if let Some(argument) = call.args.first_mut() {
            argument.expr = Expr::Ident(name);
        }
        count += 1;
    });
    exact_calls::make_exact(&mut expression, program.source_info(), &mut scope);
    (expression, scope)
}

fn pattern_of(call: &CallExpr) -> Option<Pattern> {
    match call.args.as_slice() {
        [
            IdedExpr {
                expr: Expr::Literal(LiteralValue::String(text)),
                ..
            },
        ] if call.func_name == "matches" && call.target.is_some() => {
            Regex::new(text.inner()).ok().map(Pattern)
        }
        _ => None,
    }
}

/// Calls `change` for every call in the expression, whose depth was bounded before.
pub(crate) fn visit(node: &mut IdedExpr, change: &mut impl FnMut(&mut CallExpr)) {
    match &mut node.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Select(select) => visit(&mut select.operand, change),
        Expr::List(list) => list
            .elements
            .iter_mut()
            .for_each(|element| visit(element, change)),
        Expr::Map(map) => map
            .entries
            .iter_mut()
            .for_each(|entry| visit_entry(&mut entry.expr, change)),
        Expr::Struct(fields) => {
            fields
                .entries
                .iter_mut()
                .for_each(|entry| visit_entry(&mut entry.expr, change));
        }
        Expr::Comprehension(inner) => {
            for part in [
                &mut inner.iter_range,
                &mut inner.accu_init,
                &mut inner.loop_cond,
                &mut inner.loop_step,
                &mut inner.result,
            ] {
                visit(part, change);
            }
        }
        Expr::Call(call) => {
            change(call);
            call.target
                .iter_mut()
                .for_each(|target| visit(target, change));
            call.args
                .iter_mut()
                .for_each(|argument| visit(argument, change));
        }
    }
}

fn visit_entry(entry: &mut EntryExpr, change: &mut impl FnMut(&mut CallExpr)) {
    match entry {
        EntryExpr::StructField(field) => visit(&mut field.value, change),
        EntryExpr::MapEntry(entry) => {
            visit(&mut entry.key, change);
            visit(&mut entry.value, change);
        }
    }
}
