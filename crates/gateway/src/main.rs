//! The program `fluent-gateway`: the gateway in a process of its own.

use std::process::ExitCode;

/// An event is many small pieces of memory: the system's allocator took a sixth of the cost of an
/// event.
#[global_allocator]
static ALLOCATOR: process::Allocator = process::Allocator;

fn main() -> ExitCode {
    fluent_gateway::main()
}
