//! What a comparison is asked for, and its state while it runs.

use settings::ApiAccount;

use crate::fluent_log::Log;
use crate::received::{Expected, Received};
use crate::record::AccountContext;
use crate::report::{Observer, Summary};

/// Kind of a comparison.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mode {
    /// Whether missing events are admitted, and not only shown.
    pub admits: bool,
    /// Whether to compare even a time of which it is not known what was received: any event that
    /// is not here then counts as missing.
    pub is_unknown: bool,
}

/// State of the comparison of one account.
pub(crate) struct Comparison<'a> {
    pub(crate) account: &'a ApiAccount,
    pub(crate) asked: AccountContext<'a>,
    pub(crate) log: Log<'a>,
    pub(crate) received: Received<'a>,
    pub(crate) expected: Expected,
    pub(crate) tally: &'a mut Summary,
    pub(crate) observer: &'a mut dyn Observer,
}
