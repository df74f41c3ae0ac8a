//! Equality and order of values, with every digit of numbers: the functions that stand for the
//! language's operators.

use std::cmp::Ordering;
use std::sync::LazyLock;

use cel::ExecutionError;
use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelMap};
use cel::common::value::{CowVal, Val};

use crate::numbers::{Answer, Number, decimal, of_another_type, text};

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

pub(crate) fn equal<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (one, other) = both(&values)?;
    answer(is_equal(one, other)?)
}

pub(crate) fn different<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (one, other) = both(&values)?;
    answer(!is_equal(one, other)?)
}

pub(crate) fn less<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (one, other) = both(&values)?;
    answer(order(one, other)?.is_lt())
}

pub(crate) fn at_most<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (one, other) = both(&values)?;
    answer(order(one, other)?.is_le())
}

pub(crate) fn more<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (one, other) = both(&values)?;
    answer(order(one, other)?.is_gt())
}

pub(crate) fn at_least<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (one, other) = both(&values)?;
    answer(order(one, other)?.is_ge())
}

pub(crate) fn within<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (value, container) = both(&values)?;
    answer(is_within(value, container)?)
}
