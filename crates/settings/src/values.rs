//! Lengths of time and numbers of bytes, as the settings write them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// A length of time as it is written: `10s`, `15m`, `72h` or `3d`. For what may be left out; other
/// fields are read by [`duration`].
#[derive(Clone, Copy, Debug, JsonSchema)]
#[schemars(transparent, extend("title" = "a duration", "examples" = ["10s"]))]
pub(crate) struct DurationText(#[schemars(with = "String")] pub(crate) Duration);

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        duration::deserialize(from).map(Self)
    }
}

/// Lengths of time, written as `10s`, `15m`, `72h` or `3d`.
pub(crate) mod duration {
    use std::time::Duration;

    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text)
            .map_err(|_| Error::custom("expected a duration such as 10s, 15m, 72h or 3d"))
    }

    /// For the defaults in the JSON Schema.
    pub(crate) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*time))
    }
}

/// A number of bytes, written as `64KiB`, `2MiB` or `10GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, JsonSchema)]
#[schemars(transparent, extend("title" = "a size", "examples" = ["64KiB"]))]
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
