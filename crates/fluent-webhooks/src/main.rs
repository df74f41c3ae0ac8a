//! The binary with the dispatchers that come with the product.

use std::process::ExitCode;

fn main() -> ExitCode {
    fluent_webhooks::main(fluent_webhooks::registry())
}
