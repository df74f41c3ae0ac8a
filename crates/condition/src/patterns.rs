//! Patterns are compiled with their expression: the library's own `matches` compiles its
//! pattern anew for every value that it meets.

use std::any::Any;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue};
use cel::common::types::{CelBool, CelString, Type};
use cel::common::value::{StaticVal, Val};
use cel::parser::Expression;
use cel::{Context, Env, IdedExpr};
use regex::Regex;

/// A compiled pattern, as a value that only `matches` takes.
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

/// What every expression may call. A pattern that could not be put in place of its text is
/// still one: the library's own `matches` is there, too.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    let added = cel::add_member_overload!(env, fn matches: (CelString<'_>, Pattern) -> CelBool);
    debug_assert!(added.is_ok(), "{added:?}");
    Arc::new(env)
});

/// Puts a variable in the place of every pattern that is written out. With it, what all
/// evaluations begin with: those variables.
pub(crate) fn compile(expression: &Expression) -> (Expression, Context<'static, 'static>) {
    let (mut expression, mut scope) = (expression.clone(), Context::with_env(Arc::clone(&ENV)));
    let mut count = 0;
    visit(&mut expression, &mut |call| {
        let Some(pattern) = pattern_of(call) else { return };
        // Nobody can write such a name.
        let name = format!("@pattern{count}");
        scope.add_variable_as_val(name.clone(), Box::new(pattern));
        if let Some(argument) = call.args.first_mut() {
            argument.expr = Expr::Ident(name);
        }
        count += 1;
    });
    (expression, scope)
}

fn pattern_of(call: &CallExpr) -> Option<Pattern> {
    match call.args.as_slice() {
        [IdedExpr { expr: Expr::Literal(LiteralValue::String(text)), .. }]
            if call.func_name == "matches" && call.target.is_some() =>
        {
            Regex::new(text.inner()).ok().map(Pattern)
        }
        _ => None,
    }
}

/// Shows every call to `change`. The depth of an expression is bounded before.
pub(crate) fn visit(node: &mut IdedExpr, change: &mut impl FnMut(&mut CallExpr)) {
    match &mut node.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Select(select) => visit(&mut select.operand, change),
        Expr::List(list) => list.elements.iter_mut().for_each(|element| visit(element, change)),
        Expr::Map(map) => map.entries.iter_mut().for_each(|entry| visit_entry(&mut entry.expr, change)),
        Expr::Struct(fields) => {
            fields.entries.iter_mut().for_each(|entry| visit_entry(&mut entry.expr, change));
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
            call.target.iter_mut().for_each(|target| visit(target, change));
            call.args.iter_mut().for_each(|argument| visit(argument, change));
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
