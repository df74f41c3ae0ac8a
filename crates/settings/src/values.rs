//! Lengths of time and numbers of bytes, as the settings write them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// A length of time, written as `10s`, `15m`, `72h` or `3d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, JsonSchema)]
#[schemars(transparent)]
pub struct Time(#[schemars(with = "String")] pub Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let expected = || Error::custom("expected a time such as 10s, 15m, 72h or 3d");
        humantime::parse_duration(&text)
            .map(Self)
            .map_err(|_| expected())
    }
}

/// A number of bytes, written as `64KiB`, `2MiB` or `10GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, JsonSchema)]
#[schemars(transparent)]
pub struct ByteSize(#[schemars(with = "String")] pub u64);

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let expected = || Error::custom("expected a size such as 64KiB, 2MiB or 10GiB");
        text.parse::<bytesize::ByteSize>()
            .map(|size| Self(size.as_u64()))
            .map_err(|_| expected())
    }
}
