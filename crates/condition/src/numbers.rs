//! Numbers that are compared by every digit. The language has numbers of 64 bits, and its own
//! comparisons would take others for the nearest.
//!
//! An event's number that is no `int` is a [`Number`], and so is a fraction in the expression.
//! Comparisons and conversions are calls of functions of ours, which see all its digits; every
//! other call is given what the language has for it: a `double`, or a text where a whole number
//! has more than 64 bits.

use std::any::Any;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, SourceInfo};
use cel::common::functions::Function;
use cel::common::traits::Negator;
use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelString, CelUInt, DYN_TYPE, Type,
};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{Context, Env, ExecutionError, IdedExpr, Value};
use event_model::{Decimal, ExactNumber};

/// Longest whole number that is written out to be converted: one of 64 bits is shorter.
const MOST_DIGITS: usize = 20;

/// Longest text of a number that an expression may read. A loop reads it up to a million times,
/// which would take hours with one as long as a body.
const LONGEST: usize = 4096;

/// A number with its text. Cheap to clone, since a loop does that at every step.
#[derive(Clone, Debug)]
pub(crate) struct Number(Arc<Written>);

/// What is known of a number's text.
#[derive(Debug)]
struct Written {
    /// `None` if it is too long to be read.
    digits: Option<Digits>,
    /// Whether it is an event's whole number of more than 64 bits, which is mostly an id.
    is_id: bool,
}

/// A number's text and what it says, so that no comparison has to find that out again.
#[derive(Debug)]
struct Digits {
    text: Box<str>,
    /// `None` if its exponent is too large.
    decimal: Option<Decimal>,
    nearest: f64,
}

impl Digits {
    fn of(text: &str) -> Option<Self> {
        let is_short = text.trim_start_matches('-').len() <= LONGEST;
        is_short.then(|| Self {
            text: text.into(),
            decimal: Decimal::parse(text),
            nearest: text.parse().unwrap_or(f64::NAN),
        })
    }
}

static TYPE: Type = Type::new_unspecified_type("number");

impl Number {
    pub(crate) fn of_event(number: &ExactNumber) -> Self {
        Self(Arc::new(Written {
            digits: Digits::of(number.as_str()),
            is_id: number.is_whole(),
        }))
    }

    fn fraction(text: &str) -> Self {
        Self(Arc::new(Written {
            digits: Digits::of(text),
            is_id: false,
        }))
    }

    fn is_id(&self) -> bool {
        self.0.is_id
    }

    fn digits(&self) -> Result<&Digits, ExecutionError> {
        self.0.digits.as_ref().ok_or_else(too_long)
    }

    fn text(&self) -> Result<&str, ExecutionError> {
        self.digits().map(|digits| &*digits.text)
    }

    fn decimal(&self) -> Result<&Decimal, ExecutionError> {
        self.digits()?.decimal.as_ref().ok_or_else(too_large)
    }

    /// The value that the language has for it.
    fn plain<'v>(&self) -> Result<Box<dyn Val + 'v>, ExecutionError> {
        let digits = self.digits()?;
        Ok(match self.is_id() {
            true => Box::new(CelString::from(digits.text.to_string())),
            false => Box::new(CelDouble::from(digits.nearest)),
        })
    }
}

/// What an [`ExecutionError::Overflow`] says of a number with too many digits to be read.
pub(crate) const TOO_LONG: &str = "digits";

fn too_long() -> ExecutionError {
    ExecutionError::Overflow(TOO_LONG, Value::Null, Value::Null)
}

fn too_large() -> ExecutionError {
    ExecutionError::Overflow("number", Value::Null, Value::Null)
}

impl Val for Number {
    fn get_type(&self) -> &Type {
        <Self as Val>::cel_type()
    }

    fn cel_type() -> &'static Type {
        &TYPE
    }

    fn as_negator<'b, 'v>(&'b self) -> Option<&'b (dyn Negator + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Number {}

impl Negator for Number {
    fn negate<'v>(&self) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let text = self.text()?;
        let text = match text.strip_prefix('-') {
            Some(text) => text.to_owned(),
            None => format!("-{text}"),
        };
        Ok(Box::new(Self::fraction(&text)))
    }
}

/// The exact value of a number of any type; `None` if this is no number.
fn decimal(value: &dyn Val) -> Option<Result<Cow<'_, Decimal>, ExecutionError>> {
    if let Some(number) = value.downcast_ref::<Number>() {
        return Some(number.decimal().map(Cow::Borrowed));
    }
    let text = if let Some(whole) = value.downcast_ref::<CelInt>() {
        whole.inner().to_string()
    } else if let Some(whole) = value.downcast_ref::<CelUInt>() {
        whole.inner().to_string()
    } else {
        // What was calculated is the shortest text that says it. A fraction without end is none.
        let fraction = value.downcast_ref::<CelDouble>()?;
        fraction.inner().to_string()
    };
    Decimal::parse(&text).map(|decimal| Ok(Cow::Owned(decimal)))
}

/// The text of a text, or of a number that is one.
fn text(value: &dyn Val) -> Option<Result<&str, ExecutionError>> {
    match value.downcast_ref::<Number>() {
        Some(number) => number.is_id().then(|| number.text()),
        None => {
            let text = value.downcast_ref::<CelString<'_>>()?;
            Some(Ok(text.inner()))
        }
    }
}

fn is_equal(one: &dyn Val, other: &dyn Val) -> Result<bool, ExecutionError> {
    if let (Some(one), Some(other)) = (one.downcast_ref::<CelInt>(), other.downcast_ref::<CelInt>())
    {
        return Ok(one.inner() == other.inner());
    }
    if let (Some(one), Some(other)) = (text(one), text(other)) {
        // Whole numbers are written in one way.
        return Ok(one? == other?);
    }
    if let (Some(one), Some(other)) = (decimal(one), decimal(other)) {
        return Ok(one? == other?);
    }
    if let (Some(one), Some(other)) = (
        one.downcast_ref::<CelList<'_>>(),
        other.downcast_ref::<CelList<'_>>(),
    ) {
        return are_equal(one.inner(), other.inner());
    }
    if let (Some(one), Some(other)) = (
        one.downcast_ref::<CelMap<'_>>(),
        other.downcast_ref::<CelMap<'_>>(),
    ) {
        return are_maps_equal(one, other);
    }
    Ok(one.equals(other))
}

fn are_equal(
    one: &[Box<dyn Val + '_>],
    other: &[Box<dyn Val + '_>],
) -> Result<bool, ExecutionError> {
    if one.len() != other.len() {
        return Ok(false);
    }
    for (one, other) in one.iter().zip(other) {
        if !is_equal(one.as_ref(), other.as_ref())? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn are_maps_equal<'v>(one: &CelMap<'v>, other: &CelMap<'v>) -> Result<bool, ExecutionError> {
    if one.inner().len() != other.inner().len() {
        return Ok(false);
    }
    for (key, value) in one.inner() {
        let is_same = match other.inner().get(key) {
            Some(other) => is_equal(value.as_ref(), other.as_ref())?,
            None => false,
        };
        if !is_same {
            return Ok(false);
        }
    }
    Ok(true)
}

fn order(one: &dyn Val, other: &dyn Val) -> Result<Ordering, ExecutionError> {
    if let (Some(one), Some(other)) = (decimal(one), decimal(other)) {
        return Ok(one?.cmp(&other?));
    }
    if let (Some(one), Some(other)) = (text(one), text(other)) {
        return Ok(one?.cmp(other?));
    }
    // What is without end is beyond every number, so any stands for one of ours.
    let (one, other) = (finite(one), finite(other));
    let comparer = one.as_comparer().ok_or_else(of_another_type)?;
    comparer.compare(other)
}

/// Returns 0 for a number of ours, and any other value as it is.
fn finite(value: &dyn Val) -> &dyn Val {
    static ZERO: LazyLock<CelDouble> = LazyLock::new(CelDouble::default);
    match value.downcast_ref::<Number>() {
        Some(number) if !number.is_id() => &*ZERO,
        _ => value,
    }
}

fn of_another_type() -> ExecutionError {
    ExecutionError::no_such_overload("comparison", Vec::new())
}

fn is_within(value: &dyn Val, container: &dyn Val) -> Result<bool, ExecutionError> {
    if let Some(list) = container.downcast_ref::<CelList<'_>>() {
        for item in list.inner() {
            if is_equal(value, item.as_ref())? {
                return Ok(true);
            }
        }
        return Ok(false);
    }
    let container = container.as_container().ok_or_else(of_another_type)?;
    match value.downcast_ref::<Number>() {
        Some(number) => container.contains(number.plain()?.as_ref()),
        None => container.contains(value),
    }
}

/// What the functions return, for values that live as long as one evaluation.
type Answer<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

/// The two values of a comparison.
fn both<'b, 'v>(
    values: &'b [CowVal<'_, 'v>],
) -> Result<(&'b dyn Val, &'b dyn Val), ExecutionError> {
    match values {
        [one, other] => Ok((one.as_ref(), other.as_ref())),
        _ => Err(of_another_type()),
    }
}

fn answer<'b, 'v>(answer: bool) -> Answer<'b, 'v> {
    Ok(CowVal::owned(CelBool::from(answer)))
}

fn equal<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (one, other) = both(&values)?;
    answer(is_equal(one, other)?)
}

fn different<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (one, other) = both(&values)?;
    answer(!is_equal(one, other)?)
}

fn less<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (one, other) = both(&values)?;
    answer(order(one, other)?.is_lt())
}

fn at_most<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (one, other) = both(&values)?;
    answer(order(one, other)?.is_le())
}

fn more<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (one, other) = both(&values)?;
    answer(order(one, other)?.is_gt())
}

fn at_least<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (one, other) = both(&values)?;
    answer(order(one, other)?.is_ge())
}

fn within<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (value, container) = both(&values)?;
    answer(is_within(value, container)?)
}

/// A value as the language has it.
fn plain<'b, 'v>(mut values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let value = values.pop().ok_or_else(of_another_type)?;
    Ok(match value.downcast_ref::<Number>() {
        Some(number) => CowVal::Owned(number.plain()?),
        None => value,
    })
}

/// The library's own conversion.
fn converted<'b, 'v>(function: &str, values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    static LIBRARY: LazyLock<Env> = LazyLock::new(Env::stdlib);
    let conversion = LIBRARY.find_overload(function, &values);
    conversion.ok_or_else(of_another_type)?(values)
}

fn number_in<'n>(values: &'n [CowVal<'_, '_>]) -> Option<&'n Number> {
    values.first()?.downcast_ref::<Number>()
}

fn to_string<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    match number_in(&values) {
        Some(number) => Ok(CowVal::owned(CelString::from(number.text()?.to_owned()))),
        None => converted("string", values),
    }
}

/// A fraction with every digit of the value, which the language's own would round.
fn to_double<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let value = values.first().ok_or_else(of_another_type)?.as_ref();
    let exact = if let Some(number) = value.downcast_ref::<Number>() {
        Some(Number::fraction(number.text()?))
    } else if let Some(text) = value.downcast_ref::<CelString<'_>>() {
        if text.inner().len() > LONGEST {
            return Err(too_long());
        }
        let is_finite = text.inner().parse().is_ok_and(f64::is_finite);
        let is_number = is_finite && Decimal::parse(text.inner()).is_some();
        is_number.then(|| Number::fraction(text.inner()))
    } else {
        let whole = value
            .downcast_ref::<CelInt>()
            .map(|whole| whole.inner().to_string());
        let unsigned = value
            .downcast_ref::<CelUInt>()
            .map(|whole| whole.inner().to_string());
        whole.or(unsigned).map(|text| Number::fraction(&text))
    };
    match exact {
        Some(exact) => Ok(CowVal::owned(exact)),
        None => converted("double", values),
    }
}

fn to_int<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let Some(number) = number_in(&values) else {
        return converted("int", values);
    };
    let whole = number
        .decimal()?
        .whole_text(MOST_DIGITS)
        .ok_or_else(too_large)?;
    let whole: i64 = whole.parse().map_err(|_| too_large())?;
    Ok(CowVal::owned(CelInt::from(whole)))
}

fn to_uint<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let Some(number) = number_in(&values) else {
        return converted("uint", values);
    };
    let whole = number
        .decimal()?
        .whole_text(MOST_DIGITS)
        .ok_or_else(too_large)?;
    let whole: u64 = whole.parse().map_err(|_| too_large())?;
    Ok(CowVal::owned(CelUInt::from(whole)))
}

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
