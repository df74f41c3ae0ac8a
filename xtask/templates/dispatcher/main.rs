//! The dispatcher stage with `__name__` beside the kinds that come with it.

use std::process::ExitCode;

/// As in every service of the product.
#[global_allocator]
static ALLOCATOR: process::Allocator = process::Allocator;

fn main() -> ExitCode {
    dispatcher::main(&dispatcher::registry().with::<fluent_dispatch___snake__::__Name__Dispatcher>())
}
