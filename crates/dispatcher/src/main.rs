//! The dispatcher as a service of its own, with the dispatchers that come with the product.

use std::process::ExitCode;

/// An event is many small pieces of memory: the system's allocator took a sixth of the time of an
/// event.
#[global_allocator]
static ALLOCATOR: process::Allocator = process::Allocator;

fn main() -> ExitCode {
    fluent_dispatcher::main(&fluent_dispatcher::registry())
}
