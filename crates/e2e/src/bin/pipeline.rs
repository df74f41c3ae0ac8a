//! The product with a dispatcher that misbehaves on demand.

fn main() -> std::process::ExitCode {
    fluent_webhooks::main(fluent_webhooks::registry().with::<e2e::Misbehaving>())
}
