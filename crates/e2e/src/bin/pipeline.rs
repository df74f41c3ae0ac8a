//! The product with one more dispatcher, which misbehaves as told.

fn main() -> std::process::ExitCode {
    fluent_webhooks::main(fluent_webhooks::registry().with::<e2e::Misbehaving>())
}
