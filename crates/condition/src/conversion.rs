//! Conversions of numbers, with every digit.

use std::sync::LazyLock;

use cel::Env;
use cel::common::types::{CelInt, CelString, CelUInt};
use cel::common::value::CowVal;
use event_model::Decimal;

use crate::numbers::{Answer, LONGEST, Number, of_another_type, too_large, too_long};

/// Longest whole number that is written out to be converted: one of 64 bits is shorter.
const MOST_DIGITS: usize = 20;

/// A value as the language has it.
pub(crate) fn plain<'b, 'v>(mut values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
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

pub(crate) fn to_string<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    match number_in(&values) {
        Some(number) => Ok(CowVal::owned(CelString::from(number.text()?.to_owned()))),
        None => converted("string", values),
    }
}

/// A fraction with every digit of the value, which the language's own would round.
pub(crate) fn to_double<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
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

pub(crate) fn to_int<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
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

pub(crate) fn to_uint<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
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
