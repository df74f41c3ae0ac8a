//! The values of JSON numbers, which are compared by their digits and never rounded.

use std::cmp::Ordering;

/// Largest exponent, up or down, that a number counts with: one beyond it counts as that one.
/// Digits are fewer than this, so no sum of exponents and lengths overflows.
const MAX_EXPONENT: i64 = i64::MAX / 4;

/// The value of a number in a normal form: its sign, its digits from the first to the last that
/// is not 0, and the power of ten.
///
/// ```
/// use fluent_event_model::Decimal;
///
/// let read = |text| Decimal::parse(text).unwrap();
/// assert_eq!(read("1.10"), read("110e-2"));
/// assert!(read("100000000000000000000.1") < read("100000000000000000000.2"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decimal {
    is_negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    /// Parses a JSON number; `None` if the text is none, or its exponent does not fit in 64 bits.
    pub fn parse(text: &str) -> Option<Self> {
        Self::with_exponent(text, |exponent| exponent.parse().ok())
    }

    /// Parses a JSON number as [`parse`](Self::parse) does, and takes an exponent that does not
    /// fit for the largest or the smallest.
    pub fn parse_clamped(text: &str) -> Option<Self> {
        Self::with_exponent(text, |exponent| {
            let beyond = if exponent.starts_with('-') {
                -MAX_EXPONENT
            } else {
                MAX_EXPONENT
            };
            let exponent = exponent.parse().unwrap_or(beyond);
            Some(exponent.clamp(-MAX_EXPONENT, MAX_EXPONENT))
        })
    }

    fn with_exponent(text: &str, exponent_of: impl Fn(&str) -> Option<i64>) -> Option<Self> {
        let (is_negative, rest) = text
            .strip_prefix('-')
            .map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((_, fraction)) if !is_digits(fraction) => return None,
            Some(parts) => parts,
            None => (mantissa, ""),
        };
        let is_padded = whole.len() > 1 && whole.starts_with('0');
        let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if !is_digits(whole) || is_padded || !is_digits(unsigned) {
            return None;
        }
        let all = [whole, fraction].concat();
        let shift = i64::try_from(fraction.len()).ok()?;
        let digits = all.trim_start_matches('0');
        let significant = digits.trim_end_matches('0');
        if significant.is_empty() {
            return Some(Self {
                is_negative: false,
                digits: String::new(),
                exponent: 0,
            });
        }
        let zeros = i64::try_from(digits.len() - significant.len()).ok()?;
        let exponent = exponent_of(exponent)?
            .checked_sub(shift)?
            .checked_add(zeros)?;
        Some(Self {
            is_negative,
            digits: significant.to_owned(),
            exponent,
        })
    }

    /// Whether the number has no fraction.
    pub fn is_whole(&self) -> bool {
        self.exponent >= 0
    }

    /// Whether the number is below 0.
    pub fn is_negative(&self) -> bool {
        self.is_negative
    }

    /// Whether the number is 0.
    pub fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    /// The number without its fraction, written out; `None` if that has more than `most` digits.
    pub fn whole_text(&self, most: usize) -> Option<String> {
        let length = self.point();
        if length <= 0 {
            return Some("0".to_owned());
        }
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= most)?;
        let kept = &self.digits[..length.min(self.digits.len())];
        let sign = if self.is_negative { "-" } else { "" };
        Some(format!("{sign}{kept:0<length$}"))
    }

    /// The number rounded to `places` after the point and written out with at least one;
    /// `None` if it has no more places than that.
    pub fn rounded_text(&self, places: u16, how: Rounding) -> Option<String> {
        let places = i64::from(places);
        if self.is_zero() || self.exponent >= -places {
            return None;
        }
        // Numbers of the digits that stay, and of those of the result.
        let kept = self.point().saturating_add(places);
        let kept_digits = match usize::try_from(kept) {
            Ok(kept) => &self.digits[..kept],
            Err(_) => "",
        };
        let mut digits: Vec<u8> = kept_digits.bytes().collect();
        let is_up = match how {
            Rounding::Ceil => !self.is_negative,
            Rounding::Floor => self.is_negative,
            Rounding::HalfEven if kept < 0 => false,
            Rounding::HalfEven => {
                let is_odd = digits.last().is_some_and(|last| last % 2 == 1);
                match self.digits[digits.len()..].cmp("5") {
                    Ordering::Less => false,
                    Ordering::Equal => is_odd,
                    Ordering::Greater => true,
                }
            }
        };
        if is_up {
            add_one(&mut digits);
        }
        let places = usize::try_from(places).unwrap_or_default();
        let digits: String = digits.into_iter().map(char::from).collect();
        let digits = format!("{digits:0>width$}", width = places + 1);
        let (whole, fraction) = digits.split_at(digits.len() - places);
        let sign = if self.is_negative { "-" } else { "" };
        let fraction = fraction.trim_end_matches('0');
        let fraction = if fraction.is_empty() { "0" } else { fraction };
        Some(format!("{sign}{whole}.{fraction}"))
    }

    /// The position of the point after the first digit's place: 1 for `1.5`, 0 for `0.15`.
    fn point(&self) -> i64 {
        let length = i64::try_from(self.digits.len()).unwrap_or(MAX_EXPONENT);
        self.exponent.saturating_add(length)
    }

    fn cmp_size(&self, other: &Self) -> Ordering {
        match (self.is_zero(), other.is_zero()) {
            // The digits have no zero at their end, so a longer text of digits is a larger number.
            (false, false) => (self.point(), &self.digits).cmp(&(other.point(), &other.digits)),
            (one, other) => other.cmp(&one),
        }
    }
}

/// How digits are cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest, and a half to the even digit.
    HalfEven,
    /// Up.
    Ceil,
    /// Down.
    Floor,
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.is_negative, other.is_negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => self.cmp_size(other),
            (true, true) => other.cmp_size(self),
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn add_one(digits: &mut Vec<u8>) {
    for digit in digits.iter_mut().rev() {
        if *digit < b'9' {
            *digit += 1;
            return;
        }
        *digit = b'0';
    }
    digits.insert(0, b'1');
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[test]
    fn numbers_are_in_the_order_of_their_values() {
        let ordered = [
            "-1e400",
            "-100000000000000000000.2",
            "-100000000000000000000.1",
            "-2",
            "-1.10000000000000000001",
            "-1.1",
            "-1e-400",
            "0",
            "1e-400",
            "0.1",
            "0.1000000000000000000001",
            "0.11",
            "1",
            "9.99",
            "10",
            "9007199254740992",
            "9007199254740993",
            "1e400",
            "2e400",
        ];
        for (at, one) in ordered.iter().enumerate() {
            for (other_at, other) in ordered.iter().enumerate() {
                assert_eq!(
                    read(one).cmp(&read(other)),
                    at.cmp(&other_at),
                    "{one} {other}"
                );
            }
        }
        assert_eq!(read("-0"), read("0e7"));
        let huge = "1e99999999999999999999";
        assert_eq!(Decimal::parse(huge), None);
        let clamped = |text: &str| Decimal::parse_clamped(text).unwrap();
        assert!(clamped(huge) > clamped("9e400"));
        assert!(clamped(&huge.replace('e', "e-")) < clamped("1e-400"));
        assert!(clamped("1e9223372036854775807") > clamped("1e5"));
    }

    #[test]
    fn digits_are_cut_off_as_they_are_written() {
        for (number, places, half_even, ceil, floor) in [
            ("2.675", 2, "2.68", "2.68", "2.67"),
            ("2.665", 2, "2.66", "2.67", "2.66"),
            ("-2.5", 0, "-2.0", "-2.0", "-3.0"),
            ("0.05", 1, "0.0", "0.1", "0.0"),
            ("0.051", 1, "0.1", "0.1", "0.0"),
            ("9.99", 1, "10.0", "10.0", "9.9"),
            ("1e-9", 2, "0.0", "0.01", "0.0"),
            (
                "99999999999999999999.5",
                0,
                "100000000000000000000.0",
                "100000000000000000000.0",
                "99999999999999999999.0",
            ),
        ] {
            let rounded = |how| read(number).rounded_text(places, how).unwrap();
            assert_eq!(rounded(Rounding::HalfEven), half_even, "{number}");
            assert_eq!(rounded(Rounding::Ceil), ceil, "{number}");
            assert_eq!(rounded(Rounding::Floor), floor, "{number}");
        }
        assert_eq!(read("1.10").rounded_text(1, Rounding::HalfEven), None);
        for (number, whole) in [
            ("12.9", "12"),
            ("-0.9", "0"),
            ("-1.5e2", "-150"),
            ("1e3", "1000"),
        ] {
            assert_eq!(read(number).whole_text(9).as_deref(), Some(whole));
        }
        assert_eq!(read("1e400").whole_text(39), None);
    }
}
