//! The dispatcher as a service of its own, with the dispatchers that come with
//! the product.

use std::process::ExitCode;

fn main() -> ExitCode {
    dispatcher::main(&dispatcher::registry())
}
