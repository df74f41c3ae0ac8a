//! Bounds of an expression: any text costs little to read, and little to evaluate.

use cel::{ParseErrors, Program};

use crate::fields::FieldPath;
use crate::kinds::{self, Kinds};
use crate::names::{self, Reads};
use crate::syntax::in_words;
use crate::{ConditionError, ConditionSyntaxError, MAX_LENGTH};

/// Deepest nesting of brackets: the parser calls itself for each.
const MAX_NESTING: usize = 16;

/// Stack of the parsing thread, in bytes: the parser needs far more than its depth suggests.
const STACK: usize = 64 << 20;

/// Deepest nesting of loops (`all`, `exists`, `map`, ...).
pub(crate) const MAX_LOOPS: u32 = 3;

/// Largest number of steps that loops may take over one event: some milliseconds.
const MAX_WORK: u64 = 1_000_000;

pub(crate) fn misread(
    text: &str,
    offset: usize,
    message: impl Into<String>,
) -> ConditionSyntaxError {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    let lines = before.matches('\n').count() + 1;
    ConditionSyntaxError {
        line: lines,
        column: line.chars().count() + 1,
        message: message.into(),
    }
}

/// Checks what must hold before a parser may see the text.
pub(crate) fn check(text: &str) -> Result<(), ConditionSyntaxError> {
    if text.trim().is_empty() {
        return Err(misread(
            text,
            0,
            "expected a condition, such as has(event.attributes.store)",
        ));
    }
    if text.len() > MAX_LENGTH {
        return Err(misread(text, 0, format!("longer than {MAX_LENGTH} bytes")));
    }
    let mut open: usize = 0;
    for (offset, c) in text.char_indices() {
        open = match c {
            '(' | '[' | '{' => open + 1,
            ')' | ']' | '}' => open.saturating_sub(1),
            _ => open,
        };
        if open > MAX_NESTING {
            let why = format!("brackets stand in each other more than {MAX_NESTING} deep");
            return Err(misread(text, offset, why));
        }
    }
    // Operators without brackets nest too: `!!!!...` and `- - - ...`.
    match text
        .split(['!', '-'])
        .collect::<Vec<_>>()
        .windows(16)
        .any(|w| w.iter().all(|t| t.trim().is_empty()))
    {
        true => Err(misread(text, 0, "a chain of signs is too long")),
        false => Ok(()),
    }
}

/// The program, how deep loops are nested, the fields of an event that it reads, those that it
/// names, and what is known of its values.
type Compiled = (Program, u32, Reads, Vec<FieldPath>, Kinds);

/// Parses and checks an expression on a thread of its own, with a stack that suffices for any
/// text, and where panics end.
pub(crate) fn compile(text: &str) -> Result<Compiled, ConditionSyntaxError> {
    let unreadable = || misread(text, 0, "this can't be read as a condition");
    std::thread::scope(|scope| {
        let reading = std::thread::Builder::new()
            .name("condition".to_owned())
            .stack_size(STACK);
        let read = || {
            let program = Program::compile(text).map_err(|errors| first(text, &errors))?;
            let (loops, reads, fields) = names::check(&program)?;
            let kinds = kinds::of(program.expression(), program.source_info());
            Ok((program, loops, reads, fields, kinds))
        };
        let read = reading
            .spawn_scoped(scope, read)
            .map_err(|_| unreadable())?;
        read.join().unwrap_or_else(|_| Err(unreadable()))
    })
}

fn first(text: &str, errors: &ParseErrors) -> ConditionSyntaxError {
    let Some(error) = errors.errors.first() else {
        return misread(text, 0, "not a condition");
    };
    let at = |place: isize| usize::try_from(place).unwrap_or(1).max(1);
    let message = error.msg.lines().next().unwrap_or_default();
    ConditionSyntaxError {
        line: at(error.pos.0),
        column: at(error.pos.1),
        message: in_words(message),
    }
}

/// Fails if `loops` nested loops over `size` values take too many steps.
pub(crate) fn check_work(size: u64, loops: u32) -> Result<(), ConditionError> {
    match size.saturating_pow(loops) {
        work if work > MAX_WORK && loops > 0 => Err(ConditionError(
            "the event is too large for the loops in it".into(),
        )),
        _ => Ok(()),
    }
}
