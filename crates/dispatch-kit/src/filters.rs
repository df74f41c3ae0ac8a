//! The filters, tests and functions that see numbers: like the engine's, with every digit.

use std::sync::Arc;

use dispatch::{Decimal, Rounding};
use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, filters, tests};

use crate::comparison::{Case, compared, container, container_in, counted_items, original};
use crate::json_text::to_json;
use crate::numbers::{Exact, check_length, counted, decimal_of};
use crate::operators::{COMPARED, COUNTED, SEARCHED, WRITTEN};

/// Longest whole number that `int` writes out of an exponent or a fraction.
const MOST_DIGITS: usize = 400;

/// Adds them to an environment.
pub(crate) fn add(environment: &mut Environment<'_>) {
    add_functions(environment);
    add_orders(environment);
    environment.add_filter("tojson", to_json);
    environment.add_filter("abs", abs);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("round", round);
    environment.add_filter("sum", sum);
    environment.add_filter("format", format);
    add_tests(environment);
}

fn add_functions(environment: &mut Environment<'_>) {
    environment.add_function(COUNTED, |value: &Value| counted(value));
    environment.add_function(COMPARED, |value: &Value| compared(value));
    environment.add_function(SEARCHED, |value: &Value| container(value));
    environment.add_function(WRITTEN, |text: &str| {
        Exact::written(text).map(|number| compared(&number))
    });
}

/// The filters that compare.
fn add_orders(environment: &mut Environment<'_>) {
    environment.add_filter(
        "sort",
        |state: &State<'_, '_>, value: Value, how: Kwargs| {
            filters::sort(
                state,
                container_in(&value, case(&how, Case::FoldAscii)?),
                how,
            )
            .and_then(|sorted| originals(&sorted))
        },
    );
    environment.add_filter(
        "unique",
        |state: &State<'_, '_>, value: Value, how: Kwargs| {
            filters::unique(state, container_in(&value, case(&how, Case::Fold)?), how)
                .and_then(|unique| originals(&unique))
        },
    );
    environment.add_filter("min", |state: &State<'_, '_>, value: Value, how: Kwargs| {
        filters::min(
            state,
            container_in(&value, case(&how, Case::FoldAscii)?),
            how,
        )
        .map(|least| original(&least))
    });
    environment.add_filter("max", |state: &State<'_, '_>, value: Value, how: Kwargs| {
        filters::max(
            state,
            container_in(&value, case(&how, Case::FoldAscii)?),
            how,
        )
        .map(|most| original(&most))
    });
    environment.add_filter(
        "dictsort",
        |state: &State<'_, '_>, value: &Value, how: Kwargs| {
            charge(state, value)?;
            let case = case(&how, Case::FoldAscii)?;
            filters::dictsort(&container_in(value, case), how).and_then(|sorted| pairs(&sorted))
        },
    );
    environment.add_filter("groupby", group_by);
}

/// How a filter compares texts, unless it is told to heed capitals.
fn case(how: &Kwargs, otherwise: Case) -> Result<Case, Error> {
    let is_exact = how.get::<Option<bool>>("case_sensitive")?;
    Ok(if is_exact.unwrap_or(false) {
        Case::Exact
    } else {
        otherwise
    })
}

/// The items of a list, each as it was before it was compared.
fn originals(list: &Value) -> Result<Value, Error> {
    let items = list.try_iter()?.map(|item| original(&item));
    Ok(Value::from(items.collect::<Vec<_>>()))
}

/// Pairs of keys and values, each as it was before it was compared.
fn pairs(list: &Value) -> Result<Value, Error> {
    let pairs = list.try_iter()?.map(|pair| {
        let part = |at: usize| pair.get_item(&at.into()).map(|part| original(&part));
        Ok::<_, Error>(Value::from((part(0)?, part(1)?)))
    });
    pairs.collect::<Result<Vec<_>, _>>().map(Value::from)
}

/// Charges for the items of a value, for a filter that does not.
fn charge(state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    let items = value.len().unwrap_or_default();
    // Sorting compares each item some times.
    let steps = items.saturating_mul(items.max(2).ilog2() as usize);
    state.consume_fuel(u64::try_from(steps).unwrap_or(u64::MAX))
}

fn group_by(
    state: &State<'_, '_>,
    value: Value,
    attribute: Option<&str>,
    how: Kwargs,
) -> Result<Value, Error> {
    // It names what is undefined, which the engine's own function does not.
    let items = filters::list(state, value)?;
    charge(state, &items)?;
    filters::groupby(
        container_in(&items, case(&how, Case::FoldAscii)?),
        attribute,
        how,
    )
    .map(|groups| original(&groups))
}

fn abs(value: &Value) -> Result<Value, Error> {
    check_length(value)?;
    match Exact::text(value) {
        Some(text) => Ok(Exact::value(text.trim_start_matches('-'))),
        None => filters::abs(value.clone()),
    }
}

fn int(
    state: &State<'_, '_>,
    value: &Value,
    default: Option<Value>,
    base: Option<u32>,
    options: Kwargs,
) -> Result<Value, Error> {
    check_length(value)?;
    let Some(number) = exact_decimal(value) else {
        return filters::int(state, value, default, base, options);
    };
    let too_long = || Error::new(ErrorKind::InvalidOperation, "a number that is too long");
    let text = number.whole_text(MOST_DIGITS).ok_or_else(too_long)?;
    Ok(match (text.parse::<i64>(), text.parse::<i128>()) {
        (Ok(whole), _) => whole.into(),
        (_, Ok(whole)) => whole.into(),
        _ => Exact::value(&text),
    })
}

/// A whole number that is written with a fraction or an exponent, as the engine's.
fn whole(value: &Value) -> Option<Value> {
    check_length(value).ok()?;
    let number = exact_decimal(value).filter(|number| number.is_whole())?;
    let whole = number.whole_text(MOST_DIGITS)?.parse::<i128>();
    whole.ok().map(Value::from)
}

fn float(
    state: &State<'_, '_>,
    value: &Value,
    default: Option<Value>,
    options: Kwargs,
) -> Result<Value, Error> {
    check_length(value)?;
    if let Some(text) = Exact::text(value) {
        return Ok(match text.contains(['.', 'e', 'E']) {
            true => value.clone(),
            false => Exact::value(&format!("{text}.0")),
        });
    }
    let made = filters::float(state, value, default, options)?;
    // A whole number may be one that no fraction of the engine is.
    let is_rounded = value.is_integer() && decimal_of(value) != decimal_of(&made);
    Ok(match is_rounded {
        true => Exact::value(&format!("{value}.0")),
        false => made,
    })
}

fn round(
    value: &Value,
    precision: Option<i32>,
    method: Option<&str>,
    options: Kwargs,
) -> Result<Value, Error> {
    check_length(value)?;
    let places = match precision {
        Some(places) => places,
        None => options.get::<Option<i32>>("precision")?.unwrap_or(0),
    };
    let method = match method {
        Some(method) => method,
        None => options.get::<Option<&str>>("method")?.unwrap_or("common"),
    };
    options.assert_all_used()?;
    let how = match method {
        "common" => Some(Rounding::HalfEven),
        "ceil" => Some(Rounding::Ceil),
        "floor" => Some(Rounding::Floor),
        _ => None,
    };
    match (exact_decimal(value), how, u16::try_from(places)) {
        (Some(number), Some(how), Ok(places)) => {
            let rounded = number.rounded_text(places, how);
            Ok(rounded.map_or_else(|| value.clone(), |text| Exact::value(&text)))
        }
        _ => filters::round(
            counted(value),
            Some(places),
            Some(method),
            Kwargs::from_iter::<[(String, Value); 0]>([]),
        ),
    }
}

/// The value of a number that is not the engine's.
fn exact_decimal(value: &Value) -> Option<Arc<Decimal>> {
    Exact::text(value)?;
    decimal_of(value)
}

fn sum(
    state: &State<'_, '_>,
    values: Value,
    attribute: Option<&str>,
    start: Option<Value>,
    options: Kwargs,
) -> Result<Value, Error> {
    filters::sum(state, counted_items(&values), attribute, start, options)
}

/// The filter `format`: a number is written as it came by `%s`, and counted with by the others.
fn format(
    state: &mut State<'_, '_>,
    text: &Value,
    arguments: Rest<ValueOrKwargs>,
) -> Result<Value, Error> {
    let conversions = conversions(text.as_str().unwrap_or_default());
    let arguments = arguments.into_values().into_iter().enumerate();
    let arguments = arguments.map(|(at, value)| match conversions.get(at) {
        Some('s' | 'r' | 'a') | None => value,
        Some('d' | 'i' | 'u' | 'x' | 'X' | 'o' | 'b' | 'c') => {
            whole(&value).unwrap_or_else(|| counted(&value))
        }
        Some(_) => counted(&value),
    });
    let arguments: Vec<ValueOrKwargs> = arguments.map(ValueOrKwargs::from).collect();
    filters::format(state, text, Rest(arguments))
}

/// The letters of the conversions in a text for `format`, one for each argument.
fn conversions(text: &str) -> Vec<char> {
    let mut found = Vec::new();
    let mut letters = text.chars();
    while letters.any(|letter| letter == '%') {
        for letter in letters.by_ref() {
            match letter {
                // A width that is an argument, too.
                '*' => found.push('d'),
                '%' => break,
                letter if letter.is_ascii_alphabetic() => {
                    found.push(letter);
                    break;
                }
                _ => {}
            }
        }
    }
    found
}

fn add_tests(environment: &mut Environment<'_>) {
    let same: fn(&Value, &Value) -> bool = |a, b| compared(a) == compared(b);
    let other: fn(&Value, &Value) -> bool = |a, b| compared(a) != compared(b);
    let less: fn(&Value, &Value) -> bool = |a, b| compared(a) < compared(b);
    let at_most: fn(&Value, &Value) -> bool = |a, b| compared(a) <= compared(b);
    let more: fn(&Value, &Value) -> bool = |a, b| compared(a) > compared(b);
    let at_least: fn(&Value, &Value) -> bool = |a, b| compared(a) >= compared(b);
    for (names, test) in [
        (&["eq", "equalto", "=="][..], same),
        (&["ne", "!="], other),
        (&["lt", "lessthan", "<"], less),
        (&["le", "<="], at_most),
        (&["gt", "greaterthan", ">"], more),
        (&["ge", ">="], at_least),
    ] {
        for name in names {
            environment.add_test(*name, move |a: &Value, b: &Value| test(a, b));
        }
    }
    environment.add_test("in", |state: &State<'_, '_>, value: &Value, of: &Value| {
        tests::is_in(state, &compared(value), &container(of))
    });
    let is_exact = |value: &Value| Exact::text(value).is_some();
    environment.add_test("number", move |value: &Value| {
        is_exact(value) || tests::is_number(value)
    });
    let is_integer = |value: &Value| match Exact::text(value) {
        Some(text) => !text.contains(['.', 'e', 'E']) && text != "-0",
        None => value.is_integer(),
    };
    for name in ["integer", "int"] {
        environment.add_test(name, move |value: &Value| is_integer(value));
    }
    environment.add_test("float", move |value: &Value| match is_exact(value) {
        true => !is_integer(value),
        false => value.kind() == ValueKind::Number && !value.is_integer(),
    });
    environment.add_test("odd", |value: &Value| tests::is_odd(counted(value)));
    environment.add_test("even", |value: &Value| tests::is_even(counted(value)));
    environment.add_test("divisibleby", |value: &Value, by: &Value| {
        tests::is_divisibleby(&counted(value), &counted(by))
    });
}
