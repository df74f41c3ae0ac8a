//! The dispatcher as a service of its own, with the dispatchers that come with
//! the product.

use std::process::ExitCode;

/// An event is many small pieces of memory: with the system's allocator, a sixth
/// of its cost was theirs.
#[global_allocator]
static ALLOCATOR: service::Allocator = service::Allocator;

fn main() -> ExitCode {
    dispatcher::main(&dispatcher::registry())
}
